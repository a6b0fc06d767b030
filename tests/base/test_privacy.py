"""Passwords are found however they were typed, and nothing else is taken for one."""

import getpass

import pytest

from nas.base.privacy import hidden_words, hide_secrets, path_name, shared, shared_command, shared_word, visible

SECRETS = [
    "postgresql://user:SECRET@host/db",
    "postgresql+psycopg://user:SECRET@host:5432/db?sslmode=require",
    "postgresql:/user:SECRET@host/db",
    "postgresql:user:SECRET@host/db",
    "postgresql:///user:SECRET@host/db",
    "postgresql//user:SECRET@host/db",
    "postgresql;//user:SECRET@host",
    "postgresql://user:pa@SECRET@host/db",
    "postgresql://user:pa%40SECRET@host",
    "postgresql://user:pa/SECRET@host",
    "postgresql://user%3ASECRET@host",
    "postgresql://user:SECRET@",
    "postgresql://user:SECRET",
    "postgresql://user:SECRET/db",
    "user:SECRET@host/db",
    "redis://:SECRET@host:1",
    "https://SECRET@host/x",
    "postgresql://host/db?user=x&password=SECRET&sslpassword=SECRET",
    "postgresql://host/db?PassWord=SECRET",
    "mysql://host/db?pass%77ord=SECRET",
    "snowflake://u:SECRET@account/db?token=SECRET",
    "host=x password='SECRET SECRET' user=y",
    "PGPASSWORD=SECRET python search.py",
    "(psycopg.OperationalError) postgresql://u:SECRET@h/d: refused",
]


@pytest.mark.parametrize("text", SECRETS)
def test_no_part_of_a_password_is_left(text):
    hidden = hide_secrets(text)
    assert "SECRET" not in hidden
    assert "***" in hidden
    assert hide_secrets(hidden) == hidden
    assert "SECRET" not in shared(text)
    assert "SECRET" not in hidden_words([text])[0]


def test_blanks_and_quotes_end_no_password_of_a_word():
    for word in ("postgresql://user: SECRET@host", "postgresql://user:a'SECRET@host", 'x://u:a"b SECRET c@h'):
        assert "SECRET" not in hidden_words([word])[0]


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://host:5432/db",
        "postgresql://user@host/db",
        "http://[::1]:8080/x",
        "layers.num_tokens=[16, 4]",
        "torch-cpu:batch=8,threads=1",
        "16:42:01 done, mail a@b.org",
        "backbone.class_token=true",
        "digits-1: 3 classes",
        "error: d.yaml: line 3: key@x",
    ],
)
def test_what_is_no_secret_stays(text):
    assert hide_secrets(text) == text
    assert hidden_words(text.split()) == text.split()


def test_what_is_secret_in_a_url_is_hidden_in_what_a_driver_says_of_it():
    url = "postgresql://user:pa%40ss@host/db"
    assert hide_secrets("cannot log in with pa@ss or pa%40ss", of=url) == "cannot log in with *** or ***"


@pytest.mark.parametrize(
    ("private", "public"),
    [
        ("/home/alice/data", "data"),
        ("/home/alice", "."),
        ("/Users/alice/x/y.pth", "y.pth"),
        (r"C:\Users\alice\my data", "my data"),
        (r"C:\Users\alice", "."),
        (r"\\server\alice\data", "data"),
        ("~", "."),
        ("~/photos", "photos"),
        ("~alice/photos", "photos"),
        ("folder:/home/alice smith/my data", "folder:my data"),
        ("parquet:/home/alice/a.parquet,~/b.parquet", "parquet:a.parquet,b.parquet"),
        ("data.spec=folder:/home/alice/d", "data.spec=folder:d"),
        ("--run=/home/alice/r", "--run=r"),
        ("sqlite:////home/alice/x.db", "sqlite:///x.db"),
        ("postgresql://alice:SECRET@host/db", "postgresql://host/db"),
        ("results/digits-1", "results/digits-1"),
        ("torch-cpu:batch=8", "torch-cpu:batch=8"),
        ("timm:vit_tiny_patch16_224.augreg_in21k", "timm:vit_tiny_patch16_224.augreg_in21k"),
    ],
)
def test_words_are_shared_without_paths_and_users(private, public):
    assert shared_word(private) == public
    assert shared_word(public) == public


def test_below_the_working_directory_paths_become_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert path_name(str(tmp_path / "a" / "b")) == "a/b"
    assert shared(f"{tmp_path}/a/b: no such file, '/somewhere else/c' neither") == "a/b: no such file, 'c' neither"


def test_the_name_of_the_user_goes_with_what_is_before_it(monkeypatch):
    monkeypatch.setattr(getpass, "getuser", lambda: "alice")
    assert shared("../../home/alice/x/y") == "x/y"
    assert shared({"a": ["alice/x", 1.5, None, "malice/x"]}) == {"a": ["x", 1.5, None, "malice/x"]}


def test_a_command_is_shared_word_by_word():
    command = "python /opt/search.py run /home/al/x.yaml --data 'folder:/home/al/my images' --storage '$NAS_STORAGE'"
    assert shared_command(command) == ("nas run x.yaml --data 'folder:my images' --storage '$NAS_STORAGE'")
    assert shared_command("unclosed ' /home/al/x") == "unclosed ' x"


def test_numbers_units_and_glyphs_are_no_paths():
    for text in ("MACs/image", "ms/batch", "1/2", "█▇/▆", "a / b", "</script>", "https://example.org/a/b", "C/C++"):
        assert shared(text) == text


def test_control_characters_are_shown_and_lines_stay():
    assert visible("a\x1b[31mb\u202ec\nd\te\r\x9b") == "a\\x1b[31mb\\u202ec\nd\te\\r\\x9b"
    assert visible("Zoë ★ 图像") == "Zoë ★ 图像"
