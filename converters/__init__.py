"""Host side: source -> graph -> passes -> verified variants -> bundle."""
