"""Finds profiles by name or path: built in, from a plug-in, or a file of the user's.

A plug-in is an entry point of the group ``edge_sdk.profiles`` that names a folder
(:class:`pathlib.Path`) of ``NAME.toml`` files. The built-in profiles are found without
looking for plug-ins, which takes longer the more packages are installed.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from device_profiles.parse import parse
from device_profiles.schema import Profile
from edge_sdk.errors import ProfileError
from edge_sdk.plugins import load_plugin
from edge_sdk.toml_files import suggest

BUILTIN = Path(__file__).parent
"""Folder of the profiles that come with edge-sdk."""


def load_profile(name_or_path: str | os.PathLike[str]) -> Profile:
    """Loads one profile.

    Args:
        name_or_path: A built-in or plug-in profile's name, or the path of a ``.toml`` file.

    Raises:
        ProfileError: No such profile, or a wrong field in it.
    """
    path = profile_path(name_or_path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ProfileError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except UnicodeDecodeError as error:
        raise ProfileError(f"not UTF-8 text: {error.reason}", where=str(path)) from None
    return parse(text, str(path))


def profile_path(name_or_path: str | os.PathLike[str]) -> Path:
    """The file of a profile; its content is not looked at.

    Raises:
        ProfileError: No profile has this name; close ones are suggested.
    """
    given = os.fspath(name_or_path)
    if given.endswith(".toml") or os.sep in given:
        return Path(given)
    files = _files([given])
    if given not in files:
        raise ProfileError(
            f"unknown profile {given!r}{suggest(given, list(files))}",
            remedy=f"use one of {', '.join(files)}, or the path of a .toml file",
        )
    return files[given]


def profiles(only: Collection[str] | None = None) -> dict[str, Profile]:
    """Built-in and plug-in profiles by name, in order of name.

    Args:
        only: Names to look for; names that do not exist are left out. ``None`` means all.

    Raises:
        ProfileError: One of the files is wrong, or two have the same name.
    """
    loaded = {
        name: load_profile(path)
        for name, path in _files(only).items()
        if only is None or name in only
    }
    for name, profile in loaded.items():
        if profile.name != name:
            raise ProfileError(
                f"{profile.name!r} is not the file's name", where=f"{profile_path(name)}: name"
            )
    return loaded


def _files(wanted: Collection[str] | None) -> dict[str, Path]:
    """The files by name: of plug-ins too, unless those wanted are all built in."""
    found = {path.stem: path for path in BUILTIN.glob("*.toml")}
    if wanted is not None and all(name in found for name in wanted):
        return dict(sorted(found.items()))
    from importlib.metadata import entry_points

    for entry in entry_points(group="edge_sdk.profiles"):
        folder = Path(load_plugin(entry, ProfileError))
        for path in folder.glob("*.toml"):
            other = found.setdefault(path.stem, path)
            if other != path:
                raise ProfileError(
                    f"profile {path.stem!r} is also defined by {other}",
                    where=str(path),
                    remedy="rename one of the files and the name inside",
                )
    return dict(sorted(found.items()))
