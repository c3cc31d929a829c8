# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""An OpenID provider at port 9443 by HTTPS, whose form of the login takes any name of a subject and no password."""

from __future__ import annotations

import oidc_provider_mock
import uvicorn

if __name__ == "__main__":
    users = [oidc_provider_mock.User(sub=f"subject-of-{name}", claims={"preferred_username": name}) for name in ("grace", "admin")]
    uvicorn.run(
        oidc_provider_mock.app(user_claims=users, require_nonce=True),
        interface="wsgi",
        host="0.0.0.0",
        port=9443,
        ssl_certfile="/etc/ldap/tls/server.pem",
        ssl_keyfile="/etc/ldap/tls/server.key",
    )
