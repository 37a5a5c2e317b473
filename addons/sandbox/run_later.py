"""What is run outside a sandbox by itself, or by a user who thinks nothing of it: nobody inside may change it."""

from __future__ import annotations

BY_THE_HOST = ("/bin", "/boot", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/nix", "/opt", "/sbin", "/snap", "/usr",
               "/var")
"""Folders of root's."""
WORKED_IN = ("/opt", "/usr/local/src", "/usr/src", "/var/www")
"""Folders among them in which people and their tools work: one is root's to work in where it is the working folder."""
BY_THE_USER = (
    ".bash_login", ".bash_logout", ".bash_profile", ".bashrc", ".profile", ".zlogin", ".zprofile", ".zshenv", ".zshrc",
    ".config/fish", ".ssh", ".config/systemd", ".config/autostart", ".local/share/systemd", ".gitconfig", ".config/git",
    ".npmrc",
)
"""Files and folders of a user's home, as far as they are there."""
