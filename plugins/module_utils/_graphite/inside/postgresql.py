# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: metricstack maintainers
"""Run PostgreSQL's own programs on the database."""

from __future__ import annotations

import os
import subprocess

from .protocol import Kind, RefusalError

# Everything that pg_dump takes from there, so that nothing is left that the copy lacks.
DROP_TABLES = """
SET client_min_messages = warning;
DO $$
DECLARE item record;
BEGIN
  FOR item IN SELECT tablename FROM pg_tables WHERE schemaname = current_schema() AND tableowner = current_user LOOP
    EXECUTE format('DROP TABLE %I CASCADE', item.tablename);
  END LOOP;
END $$
"""


def run_program(connection, command: list[str], **streams) -> None:
    """Run one of PostgreSQL's programs on the database, as Django's own shell would be; the password is in memory alone."""
    arguments: list[str] = []
    environment = dict(os.environ)
    streams = {"stdin": subprocess.DEVNULL, **streams}
    if connection is not None:
        if connection.vendor != "postgresql":
            raise RefusalError(
                Kind.ENGINE, f"a database of the kind '{connection.vendor}' is not known to these modules; copy it with its own tools"
            )
        (_psql, *arguments), more = connection.client.settings_to_cmd_args_env(connection.settings_dict, [])
        environment.update(more or {})
    password = environment.get("PGPASSWORD", "")
    # libpq reads it from a file that nobody else may read; a file has no way to write a line feed.
    descriptor = os.memfd_create("pgpass")
    if password and "\n" not in password:
        os.fchmod(descriptor, 0o600)
        escaped = password.replace("\\", "\\\\").replace(":", "\\:")
        os.write(descriptor, f"*:*:*:*:{escaped}\n".encode())
        del environment["PGPASSWORD"]
        environment["PGPASSFILE"] = f"/proc/self/fd/{descriptor}"
        streams["pass_fds"] = [descriptor]
    try:
        process = subprocess.run([*command, *arguments], env=environment, stderr=subprocess.PIPE, check=False, **streams)
    except FileNotFoundError as error:
        raise RefusalError(Kind.DATABASE, f"{command[0]} is not there; install postgresql-client") from error
    finally:
        os.close(descriptor)
    if process.returncode != 0:
        raise RefusalError(Kind.DATABASE, f"{command[0]}: {process.stderr.decode('utf-8', 'replace').strip()[-2000:]}")
