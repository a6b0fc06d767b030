"""What may leave this process: texts without passwords, files to be shared also without paths and names of users.

A run's folder is private: it keeps paths, because it has to be resumed, but never a password. What is made to be given
away (report, bundle, table of the front, latency pack) goes through `shared` or `shared_command`.
"""

import getpass
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from nas.base.program import rename_program

HIDDEN = "***"
STORAGE_VARIABLE = "NAS_STORAGE"

# One slash or none, a host that is missing and an "@" in the password are slips of those who typed a password.
_LOGIN = re.compile(
    r"(?P<user>(?:\b[a-z][a-z0-9+.-]*:/*)?[^\s:/@'\"=,]*)(?::|%3a)(?!/)(?P<secret>[^\s'\"]+)@", re.IGNORECASE
)
_NO_HOST = re.compile(r"(?P<user>://[^\s:/@\[\]'\"]+):(?!\d*(?:[/?#\s'\",;)]|$))(?P<secret>[^\s/?#@'\"]+)")
_TOKEN = re.compile(r"(?P<user>\bhttps?://)(?P<secret>[^\s:/@'\"]+)(?=@)", re.IGNORECASE)
_KEY = r"(?:pass(?:word|wd|phrase|wort|code)?|pwd|secret|api_?key|access_?key|private_?key|signature|credentials?)"
_PAIR = re.compile(
    rf"(?P<user>(?:[\w.-]*{_KEY}|[\w.-]*(?:auth|access|hf|api|bearer)[_-]?token|(?<=[?&;])(?:token|sig|key|auth))"
    r"(?:=|%3d|=3d))(?P<secret>'[^']*'|\"[^\"]*\"|[^\s&;'\"#]+)",
    re.IGNORECASE,
)
_QUERY = re.compile(r"(?<=[?&;])(?P<user>[^=&;\s'\"]*%[^=&;\s'\"]*)=(?P<secret>[^\s&;'\"#]+)")
_SECRET_KEY = re.compile(rf"(?:{_KEY}|token)$", re.IGNORECASE)

_PATH = re.compile(
    r"(?P<quote>['\"])(?P<quoted>(?:~[^/'\"]*)?/[^'\"]*|~|[a-z]:[\\/][^'\"]*|\\\\[^'\"]*)(?P=quote)"
    r"|(?<![^\s'\"=,;|()\[\]{}])(?P<bare>(?:~[\w.-]*)?/(?!/)[^\s'\",;:|<>()\[\]{}]+|~(?=\s|$)|[a-z]:[\\/][^\s'\",;|<>]*"
    r"|\\\\[^\s'\",;|<>]+)"
    r"|(?<=[a-z]:)(?P<spec>/(?!/)[^\s'\",;|<>]*|~[^\s'\",;|<>]*|[a-z]:[\\/][^\s'\",;|<>]*|\\\\[^\s'\",;|<>]+)",
    re.IGNORECASE,
)
_FILE_URL = re.compile(r"\b((?:sqlite(?:\+\w+)?|file|duckdb)://)(?:[^\s'\"]*/)?([^\s'\"/?#]*)", re.IGNORECASE)
_AUTHORITY = re.compile(r"(\b[a-z][a-z0-9+.-]*:/{1,3})[^\s'\"]*@", re.IGNORECASE)
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]")


def hide_secrets(text: str, *, of: str = "") -> str:
    """A text with `***` for passwords in URLs, also in malformed ones, and for values of keys such as `password=`.

    What is secret in `of` is hidden wherever the text repeats it, also when it was decoded.
    """
    for secret in sorted(secrets_in(of), key=len, reverse=True):
        for form in {secret, unquote(secret)}:
            if len(form) >= 3:
                text = text.replace(form, HIDDEN)

    def hide(match: re.Match[str]) -> str:
        whole, start = match[0], match.start()
        return whole[: match.start("secret") - start] + HIDDEN + whole[match.end("secret") - start :]

    for pattern in (_LOGIN, _NO_HOST, _TOKEN, _PAIR):
        text = pattern.sub(hide, text)
    return _QUERY.sub(lambda match: hide(match) if _SECRET_KEY.search(unquote(match["user"])) else match[0], text)


def secrets_in(text: str) -> set[str]:
    """The passwords that `hide_secrets` finds."""
    found = {match["secret"] for pattern in (_LOGIN, _NO_HOST, _TOKEN, _PAIR) for match in pattern.finditer(text)}
    found |= {m["secret"] for m in _QUERY.finditer(text) if _SECRET_KEY.search(unquote(m["user"]))}
    return found - {HIDDEN}


def hidden_words(words: Iterable[str]) -> list[str]:
    """Words of a command line without secrets; blanks and quotes within a word end no password."""
    found = []
    for word in words:
        whole = re.sub(r"[\s'\"]", "_", word)
        found.append(hide_secrets(whole) if secrets_in(whole) else word)
    return found


def visible(text: str) -> str:
    """A text whose control characters, which a terminal obeys, are written as escapes; line breaks and tabs stay."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def shared(value: Any) -> Any:
    r"""JSON values, or a text, as others may see them: no passwords and users of URLs, no absolute paths.

    A path below the working directory becomes relative, of any other (`/data/x`, `~/x`, `C:\x`, `\\host\x`) the last
    part is kept, of a relative one with the user's name what follows that.
    """
    if isinstance(value, str):
        text = _AUTHORITY.sub(r"\1", hide_secrets(value))
        text = _FILE_URL.sub(r"\1/\2", text)
        text = _PATH.sub(_shared_path, text)
        return re.sub(rf"(?:[^\s'\"=:,]*[/\\])?(?<![\w.-]){re.escape(_user())}[/\\]+", "", text)
    if isinstance(value, Mapping):
        return {shared(key): shared(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [shared(each) for each in value]
    return value


def shared_command(command: str) -> str:
    """A command line as others may see it: `shared`, word by word, and this program by its name."""
    command = rename_program(command)
    try:
        words = shlex.split(command)
    except ValueError:
        return str(shared(command))
    return shlex.join(shared_word(word) for word in words)


def shared_word(word: str) -> str:
    """A word of a command line, or a value of a configuration, as others may see it: blanks do not end its paths."""
    # Within quotes a path may hold blanks.
    head, path = re.fullmatch(r"((?:-+[\w-]+=)?(?:[\w.]+=)?(?:[a-z][\w-]+:(?!/{2}))?)(.*)", word, re.DOTALL).groups()  # type: ignore[union-attr]
    parts = [str(shared(f'"{part}"')).removeprefix('"').removesuffix('"') for part in path.split(",")]
    return head + ",".join(parts) if "://" not in word else str(shared(word))


def _shared_path(match: re.Match[str]) -> str:
    quote = match["quote"] or ""
    return f"{quote}{path_name(match['quoted'] or match['bare'] or match['spec'])}{quote}"


def path_name(path: str) -> str:
    """A path relative to the working directory where it is below that, else its last part."""
    parts = [part for part in re.split(r"[/\\]+", path) if part]
    here = Path.cwd()
    if path.startswith("/") and here != Path("/") and Path(path).is_relative_to(here):
        return str(Path(path).relative_to(here))
    is_home = (len(parts) == 1 and path.startswith("~")) or (parts[:1] in (["home"], ["Users"]) and len(parts) < 3)
    is_home |= len(parts) == 3 and parts[1].lower() == "users" and parts[0].endswith(":")
    return "." if is_home or not parts else parts[-1]


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "root"
