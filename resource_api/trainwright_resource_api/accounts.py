"""Who may log in: a YAML file of names, roles and argon2 hashes.

version: 1
accounts:
  - name: trainer@example.com
    role: publisher
    password: $argon2id$v=19$...
"""

from __future__ import annotations

import secrets
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import yaml
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from trainwright_resource_api.problems import describe_validation
from trainwright_resource_api.secret_files import SecretFileError, WatchedSecret, read_secret, write_secret

SHORTEST_PASSWORD = 8
LONGEST_PASSWORD = 1024
"""Argon2 reads all of it: without a limit a long password is an attack."""

AccountName = Annotated[str, Field(min_length=1, max_length=254, pattern=r"^[!-~]+$")]


class AccountError(Exception):
    """An account can't be added or removed as asked."""


class Role(StrEnum):
    """What an account may do."""

    PUBLISHER = "publisher"
    READER = "reader"


class Account(BaseModel):
    """One account; its password is known as a hash only, which no representation shows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: AccountName
    role: Role
    password: str = Field(repr=False, max_length=512)

    @field_validator("password")
    @classmethod
    def _hashed(cls, value: str) -> str:
        if not value.startswith("$argon2"):
            raise ValueError("is not an argon2 hash; add accounts with `user add`, never by hand")
        return value


class AccountsFile(BaseModel):
    """The accounts as they are in the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    accounts: tuple[Account, ...] = ()

    @field_validator("accounts")
    @classmethod
    def _distinct(cls, value: tuple[Account, ...]) -> tuple[Account, ...]:
        names = [account.name.casefold() for account in value]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"more than one account is named {', '.join(doubled)}")
        return value

    def find(self, name: str) -> Account | None:
        """Return the account of that name, in whatever case it is written."""
        wanted = name.casefold()
        return next((account for account in self.accounts if account.name.casefold() == wanted), None)


class Accounts:
    """The accounts of a running server; an edited file is in force with the next request."""

    def __init__(self, path: Path, *, group_readable: bool = False) -> None:
        self._file = WatchedSecret(path, parse_accounts, group_readable=group_readable)
        self._hasher = PasswordHasher()
        # An unknown name costs the same time as a wrong password: it is checked against this.
        self._nobody = self._hasher.hash(secrets.token_urlsafe())

    def find(self, name: str) -> Account | None:
        """Return the account of that name as the file has it now."""
        return self._file.get().find(name)

    def authenticate(self, name: str, password: str) -> Account | None:
        """Return the account when the password is its own; takes the same time for unknown names."""
        account = self.find(name)
        try:
            self._hasher.verify(account.password if account else self._nobody, password)
        except (VerificationError, InvalidHashError):
            return None
        return account


def parse_accounts(content: bytes) -> AccountsFile:
    """Return the accounts of a file's content, or say all that is wrong with it."""
    try:
        return AccountsFile.model_validate(yaml.safe_load(content) or {})
    except yaml.YAMLError as error:
        raise SecretFileError("the accounts' file is not YAML; write it with `user add`") from error
    except ValidationError as error:
        raise SecretFileError(f"the accounts' file is wrong: {describe_validation(error)}") from None


def add_account(path: Path, name: str, role: Role, password: str, *, replace: bool = False) -> None:
    """Write the account into the file (made when it is not there); only its hash is kept."""
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise AccountError(
            f"the password has {len(password)} characters, not {SHORTEST_PASSWORD} to {LONGEST_PASSWORD}"
        )
    present = _read_accounts(path) if path.exists() else AccountsFile()
    if present.find(name) and not replace:
        raise AccountError(f"{path} has an account {name} already; use --replace for a new password or role")
    try:
        account = Account(name=name, role=role, password=PasswordHasher().hash(password))
    except ValidationError as error:
        raise AccountError(f"the account can't be added: {describe_validation(error)}") from None
    others = tuple(other for other in present.accounts if other.name.casefold() != name.casefold())
    _write_accounts(path, AccountsFile(accounts=(*others, account)))


def remove_account(path: Path, name: str) -> None:
    """Take the account out of the file; its tokens are refused from then on."""
    present = _read_accounts(path)
    if present.find(name) is None:
        raise AccountError(f"{path} has no account {name}")
    others = tuple(other for other in present.accounts if other.name.casefold() != name.casefold())
    _write_accounts(path, AccountsFile(accounts=others))


def list_accounts(path: Path) -> tuple[Account, ...]:
    """Return all accounts of the file."""
    return _read_accounts(path).accounts


def _read_accounts(path: Path) -> AccountsFile:
    return parse_accounts(read_secret(path, group_readable=True))


def _write_accounts(path: Path, accounts: AccountsFile) -> None:
    write_secret(path, yaml.safe_dump(accounts.model_dump(mode="json"), sort_keys=False).encode())
