"""Machines of trainings in the catalog: whoever can write there can take part, so no other secret is shared."""

from __future__ import annotations

import sqlalchemy as sa

from mainspring.core.catalog import catalog_errors, metadata
from mainspring.deploy.meeting.certificates import digest, parsed
from mainspring.deploy.meeting.model import Announced

training_machines = sa.Table(
    "training_machines",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),  # SHA-256 of the certificate
    sa.Column("model", sa.String(128), nullable=False, index=True),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("address", sa.String(300), nullable=False),
    sa.Column("certificate", sa.Text, nullable=False),
)


class AnnouncedMachines:
    """Machines that take part in the trainings of one model, or want to."""

    def __init__(self, engine: sa.Engine, model: str) -> None:
        self._engine, self._model = engine, model
        self._name = engine.url.render_as_string(hide_password=True)

    def announce(self, machine: Announced) -> None:
        """Announce a machine; a machine 0 takes the place of the one before."""
        table = training_machines
        values = {
            "id": digest(machine.der),
            "model": self._model,
            "number": machine.number,
            "host": machine.host[:255],
            "address": machine.address,
            "certificate": machine.certificate,
        }
        with catalog_errors(self._name), self._engine.begin() as connection:
            if machine.number == 0:
                connection.execute(table.delete().where(table.c.model == self._model, table.c.number == 0))
            connection.execute(table.insert().values(values))

    def every(self) -> list[Announced]:
        """Return the machines of the model, by number; without those whose certificate is none."""
        table = training_machines
        query = sa.select(table).where(table.c.model == self._model).order_by(table.c.number)
        with catalog_errors(self._name), self._engine.connect() as connection:
            return [
                Announced(row.number, row.host, row.address, row.certificate)
                for row in connection.execute(query)
                if digest(parsed(row.certificate) or b"") == row.id
            ]

    def host(self) -> Announced | None:
        """Return machine 0, if it is announced."""
        return next((each for each in self.every() if each.number == 0), None)

    def withdraw(self, certificate: str, *, others: bool = False) -> None:
        """Forget a machine, by the SHA-256 of its certificate.

        Args:
            others: Forget all others of the model too, if it is announced itself.
        """
        table = training_machines
        with catalog_errors(self._name), self._engine.begin() as connection:
            gone = connection.execute(table.delete().where(table.c.id == certificate)).rowcount
            if others and gone:
                connection.execute(table.delete().where(table.c.model == self._model))
