"""Small real models, each trained by a script here on data anybody can make again."""
