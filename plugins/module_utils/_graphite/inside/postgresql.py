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
    """Run one of PostgreSQL's programs on the database, as Django's own shell would be; the password is in the environment."""
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
    try:
        process = subprocess.run([*command, *arguments], env=environment, stderr=subprocess.PIPE, check=False, **streams)
    except FileNotFoundError as error:
        raise RefusalError(Kind.DATABASE, f"{command[0]} is not there; install postgresql-client") from error
    if process.returncode != 0:
        raise RefusalError(Kind.DATABASE, f"{command[0]}: {process.stderr.decode('utf-8', 'replace').strip()[-2000:]}")
