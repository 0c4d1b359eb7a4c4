"""Secrets in texts: none is shown, and nothing else is hidden."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scythe_catalog.redaction import redacted

JWT = "eyJhbGciOiJFUzI1NiIsImtpZCI6In0.eyJhdWQiOiJodHRwOi8vbG9jYWxob3N0In0.c2lnbmF0dXJlLW9mLXRoZS10b2tlbg"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://ada:s3cr3t@host/x.csv answered 404", "https://ada:***@host/x.csv answered 404"),
        ("postgresql+psycopg2://ada:p@ss/w?rd@db:5432/cat", "postgresql+psycopg2://ada:***@db:5432/cat"),
        ("https://ghp_0123456789@github.com/a/b", "https://***@github.com/a/b"),
        ("'https://a:b@h/' and 'https://c:d@i/'", "'https://a:***@h/' and 'https://c:***@i/'"),
        ("https://b.s3.amazonaws.com/k?X-Amz-Date=1&X-Amz-Signature=ab12&X-Amz-Expires=9",
         "https://b.s3.amazonaws.com/k?X-Amz-Date=1&X-Amz-Signature=***&X-Amz-Expires=9"),
        ("/k?X-Amz-Credential=AKIA%2F2026&X-Amz-Security-Token=Fwo%2F", "/k?X-Amz-Credential=***&X-Amz-Security-Token=***"),
        ("https://blob/c?sv=1&sig=aa%3D", "https://blob/c?sv=1&sig=***"),
        ("https://h/x?AWSAccessKeyId=A&Signature=q%3D&Expires=1", "https://h/x?AWSAccessKeyId=***&Signature=***&Expires=1"),
        ("https://h/x?token=abc", "https://h/x?token=***"),
        ("https://h/x?a=1&access_token=abc#part", "https://h/x?a=1&access_token=***#part"),
        (f"the token {JWT}, as given", "the token ***, as given"),
        ("AWS_SECRET_ACCESS_KEY=abcd python x.py", "AWS_SECRET_ACCESS_KEY=*** python x.py"),
        ("{'aws_secret_access_key': 'abcd', 'n': 1}", "{'aws_secret_access_key': '***', 'n': 1}"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
    ],
)  # fmt: skip
def test_a_secret_is_hidden_and_its_surroundings_stay(text: str, shown: str) -> None:
    assert redacted(text) == shown
    assert redacted(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "http://localhost:8080/a@b",
        "http://localhost:8080",
        "s3://bucket/a:b@c",
        "file:///home/ada/a:b@c.csv",
        "https://host/x?version=3&part=2",
        "keyword_frequency=3; monkey=4, sorted(names, key=len)",
        "they say hey.there eyes",
        "mail ada@example.org: see https://example.org",
    ],
)
def test_texts_without_secrets_are_left_as_they_are(text: str) -> None:
    assert redacted(text) == text


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HATCHET_CLIENT_TOKEN"])
def test_the_credentials_of_this_process_are_hidden_wherever_they_occur(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "wJalr/XUtn+FEMI")
    assert redacted("got wJalr/XUtn+FEMI (wJalr%2FXUtn%2BFEMI)") == "got *** (***)"


@given(st.text())
def test_any_text_is_taken_and_hiding_is_done_once(text: str) -> None:
    assert redacted(redacted(text)) == redacted(text)


@given(st.text(st.characters(exclude_categories=["Z", "C"], exclude_characters="'\"<>/?#"), min_size=8, max_size=99))
def test_no_password_of_a_url_is_shown(password: str) -> None:
    assert (
        password not in redacted(f"https://ada:{password}@host.example/x")
        or password in "https://ada:***@host.example/x"
    )


def test_a_long_text_costs_little() -> None:
    text = "  File 'model.py', line 3: r_value=0.5 at http://host:80/x?y=1\n" * 20_000
    began = time.process_time()
    assert redacted(text) == text
    assert time.process_time() - began < 2
