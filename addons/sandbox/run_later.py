"""What is run outside a sandbox by itself, or by a user who thinks nothing of it: nobody inside may change it."""

from __future__ import annotations

BY_THE_HOST = ("/bin", "/boot", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/nix", "/opt", "/sbin", "/snap", "/usr",
               "/var/lib", "/var/spool")
"""Folders of root's."""
BY_THE_USER = (
    ".bash_login", ".bash_logout", ".bash_profile", ".bashrc", ".profile", ".zlogin", ".zprofile", ".zshenv", ".zshrc",
    ".config/fish", ".ssh", ".config/systemd", ".config/autostart", ".local/share/systemd", ".gitconfig", ".config/git",
    ".npmrc",
)
"""Files and folders of a user's home, as far as they are there."""
