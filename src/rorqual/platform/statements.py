"""Statements of the request path: compiled once for a database, then run by its driver.

SQLAlchemy's own execution costs several times what SQLite does with the statement, and a request
runs a score of them. So those of the request path are written as SQLAlchemy expressions, compiled
for the dialect at their first use, and handed to the driver with their values; the rest of the
platform executes as usual. Both kinds share connections and transactions. Columns and values are
strings and integers, which need no conversion; anything else is refused when it is compiled.
"""

import functools
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final

from sqlalchemy import Connection, Integer, String, Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.compiler import SQLCompiler

_PLAIN: Final = (String, Integer)
_INSERT: Final = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


@dataclass(frozen=True, slots=True)
class _Compiled:
    text: str
    in_order: Callable[[Mapping[str, Any]], Any] | None  # None: values go by name
    fixed: dict[str, Any]  # values that are part of the statement
    make_row: Callable[[Any], Any] | None


class Statement:
    """One statement with named values. columns: those that an insert fills.

    clause is an expression, or makes one from a dialect's name.
    """

    def __init__(self, clause: Any, columns: Sequence[str] | None = None) -> None:
        self._clause = clause
        self._columns = columns
        self._compiled: dict[str, _Compiled] = {}

    def count(self, connection: Connection, values: Mapping[str, Any]) -> int:
        """Runs it; how many rows it changed."""
        return self._run(connection, self._for(connection), values).rowcount

    def one(self, connection: Connection, values: Mapping[str, Any]) -> Any | None:
        """Runs it; its first row with a field a column, None if there is none."""
        compiled = self._for(connection)
        assert compiled.make_row is not None, "the statement returns no rows"
        cursor = self._run(connection, compiled, values)
        try:
            row = cursor.fetchone()
        except connection.dialect.loaded_dbapi.Error as error:
            raise _known_error(connection, compiled.text, error) from error
        cursor.close()  # an open one would hold its snapshot
        return None if row is None else compiled.make_row(row)

    def _run(self, connection: Connection, compiled: _Compiled, values: Mapping[str, Any]) -> Any:
        filled = {**compiled.fixed, **values} if compiled.fixed else values
        in_order = compiled.in_order
        return run_text(connection, compiled.text, in_order(filled) if in_order else filled)

    def _for(self, connection: Connection) -> _Compiled:
        name = connection.dialect.name
        found = self._compiled.get(name)
        if found is None:  # two threads at once make the same
            found = self._compiled[name] = self._compile(connection)
        return found

    def _compile(self, connection: Connection) -> _Compiled:
        clause = self._clause
        if not hasattr(clause, "compile"):
            clause = clause(connection.dialect.name)
        made = clause.compile(
            dialect=connection.dialect,
            column_keys=self._columns,
            compile_kwargs={"render_postcompile": True},
        )
        assert isinstance(made, SQLCompiler)
        columns = list(getattr(clause, "selected_columns", None) or clause.exported_columns)
        types = [bind.type for bind in made.binds.values()] + [column.type for column in columns]
        strange = [kind for kind in types if not isinstance(kind, _PLAIN)]
        assert not strange, f"{strange} need a conversion; execute the statement as usual"
        fields = [column.key for column in columns]
        fixed = {name: value for name, value in made.params.items() if isinstance(value, str | int)}
        make_row = namedtuple("Row", fields)._make if fields else None
        return _Compiled(made.string, _picker(made.positiontup), fixed, make_row)


def _picker(names: Sequence[str] | None) -> Callable[[Mapping[str, Any]], Any] | None:
    """Puts named values in this order."""
    if names is None:
        return None
    if len(names) > 1:
        return itemgetter(*names)
    return lambda values: [values[name] for name in names]  # an itemgetter of one makes no list


def insert_if_absent(connection: Connection, table: Table, values: Mapping[str, Any]) -> bool:
    """Inserts a row unless one with the same key exists; True if it was inserted."""
    return _insert_of(table, tuple(values)).count(connection, values) == 1


@functools.cache
def _insert_of(table: Table, columns: tuple[str, ...]) -> Statement:
    return Statement(
        lambda dialect: _INSERT[dialect](table).inline().on_conflict_do_nothing(), columns
    )


def run_text(connection: Connection, text: str, values: Any = ()) -> Any:
    """Runs SQL in the driver, in the connection's transaction; the driver's cursor.

    Its errors are raised as SQLAlchemy's, which the rest of the platform knows.
    """
    raw = connection.connection.driver_connection
    assert raw is not None
    try:
        return raw.execute(text, values)
    except connection.dialect.loaded_dbapi.Error as error:
        raise _known_error(connection, text, error) from error


def _known_error(connection: Connection, text: str, error: Any) -> BaseException:
    if connection.dialect.is_disconnect(error, connection.connection, None):
        connection.invalidate(error)
        connection.engine.dispose()  # the others of the pool have lost the server, too
    kind = connection.dialect.loaded_dbapi.Error
    return DBAPIError.instance(
        text, None, error, kind, hide_parameters=True, dialect=connection.dialect
    )
