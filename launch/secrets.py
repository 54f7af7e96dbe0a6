"""What looks like a secret, so that none gets into a spec, a command line or pushed code."""

import re

from unclip_jax.errors import UserError

_NAME = re.compile(
    r"token|secret|passw|credential|api_?key|access_?key|private_?key", re.IGNORECASE
)

# kind -> what it looks like
_PATTERNS = {
    "a private key": re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"),
    "an AWS access key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a GitHub token": re.compile(r"\b(?:gh[pousr]_[0-9A-Za-z]{36}|github_pat_\w{40,})"),
    "a Hugging Face token": re.compile(r"\bhf_[0-9A-Za-z]{30,}\b"),
    "a Google API key": re.compile(r"\bAIza[0-9A-Za-z_-]{35}\b"),
    "a service account's key": re.compile(r'"private_key_id"\s*:\s*"[0-9a-f]{40}"'),
    "a Slack token": re.compile(r"\bxox[abprs]-[0-9A-Za-z-]{10,}"),
    "a password in a URL": re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s/:@]+:[^\s/:@]{3,}@"),
}


def is_secret_name(name: str) -> bool:
    """Whether a variable of this name usually holds a secret."""
    return bool(_NAME.search(name))


def find(text: str) -> str | None:
    """The kind of secret that the text holds, or None."""
    return next((kind for kind, pattern in _PATTERNS.items() if pattern.search(text)), None)


def refuse_in_command(words: tuple[str, ...]) -> None:
    """Raises `UserError` if a word of a command looks like a secret."""
    for word in words:
        name, equals, value = word.partition("=")
        if find(word) or (equals and value and is_secret_name(name)):
            raise UserError(
                f"{name[:30].strip()}: looks like a secret; it would be seen by everyone on the "
                "host: give it as an environment variable with --secret NAME"
            )
