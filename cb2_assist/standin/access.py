"""Who may ask what: the answers of middle_auth, which stands before every real CAVE service."""

from __future__ import annotations

from urllib.parse import quote

from cb2_assist.standin.deployment import Account, Deployment
from cb2_assist.standin.web import Answer


def check(
    at: Deployment,
    permission: str,
    authorization: str | None,
    *,
    from_script: bool,
    address: str,
) -> Account | Answer:
    """The account that a request belongs to, else how it is refused.

    Args:
        at: What is asked.
        permission: What the route needs, ``view`` or ``edit``.
        authorization: The header of that name.
        from_script: Whether the request says that it comes from a script in a page; those are not
            sent to the login page.
        address: Whole URL of the request, where the login page would lead back to.
    """
    login = f"{at.url}/sticky_auth/api/v1/authorize"
    realm = f'Bearer realm="{login}"'
    if authorization is None and at.anonymous:
        return at.accounts[0]
    if authorization is None:
        if from_script:
            return Answer(b"", 401, "text/plain", {"WWW-Authenticate": realm})
        return Answer(
            b"", 302, "text/html", {"Location": f"{login}?redirect={quote(address, safe='')}"}
        )
    scheme, _, token = authorization.partition(" ")
    if scheme != "Bearer":
        error = {
            "error": "bad_auth_header",
            "message": "Authorization header must begin with 'Bearer'",
        }
        return Answer(error, 400, headers={"WWW-Authenticate": realm})
    account = at.account(token.strip())
    if account is None:
        return invalid_token(at)
    if not account.accepted_terms:
        return missing_terms(at)
    if permission not in account.permissions:
        return Answer(
            {
                "error": "missing_permission",
                "message": f"Missing permission: {permission} for dataset {at.names.datastack}",
                "data": {
                    "required_permission": permission,
                    "auth_dataset": at.names.datastack,
                },
            },
            403,
        )
    return account


def refusal(at: Deployment, status: int, retry_after_s: float) -> Answer:
    """What comes instead of an answer, from middle_auth or from the gateway before a service.

    Args:
        at: What is asked.
        status: 401, 403, 429, 500, 502, 503 or 504.
        retry_after_s: What 429 asks for.
    """
    if status == 401:
        return invalid_token(at)
    if status == 403:
        return missing_terms(at)
    if status == 429:
        text = b"<html><title>429 Too Many Requests</title></html>"
        return Answer(text, 429, "text/html", {"Retry-After": f"{retry_after_s:g}"})
    reasons = {500: "Internal Server Error", 502: "Bad Gateway", 503: "Service Unavailable"}
    reason = reasons.get(status, "Gateway Time-out")
    return Answer(f"<html><title>{status} {reason}</title></html>".encode(), status, "text/html")


def invalid_token(at: Deployment) -> Answer:
    """How a token that no one has is refused."""
    realm = (
        f'Bearer realm="{at.url}/sticky_auth/api/v1/authorize", error="invalid_token", '
        'error_description="Invalid/Expired Token"'
    )
    error = {
        "error": "invalid_token",
        "message": "Unauthorized - Token is Invalid or Expired",
    }
    return Answer(error, 401, headers={"WWW-Authenticate": realm})


def missing_terms(at: Deployment) -> Answer:
    """How someone is refused who has not accepted the terms of service."""
    return Answer(
        {
            "error": "missing_tos",
            "message": "Need to accept Terms of Service to access resource.",
            "data": {
                "tos_id": 1,
                "tos_name": at.names.datastack,
                "tos_form_url": f"{at.url}/sticky_auth/api/v1/tos/1/accept",
            },
        },
        403,
    )
