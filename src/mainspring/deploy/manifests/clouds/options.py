"""Options that the kinds for managed services of several clouds have in common."""

from __future__ import annotations

import re

import msgspec

_PLAIN = re.compile(r"[A-Za-z0-9@:._/+-]*")
_ADDRESS = re.compile(r"[A-Za-z0-9._+-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
_OF_MODULE = ("deployers", "callers", "notify")


class CloudOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of machines and trainings.

    Attributes:
        machine: Type of each replica's machine; by default the cheapest that is large enough.
        quota: Cores that the account may use for endpoints in the region; 0: not checked.
        cpu_target: Percent of the cores that a replica uses before another one is started.
        trainings: Models that get a job of training.
        training_image: Image of these jobs, with Mainspring, its extras for training and the project.
        training_machine: Type of their machine.
        training_command: Program in that image, before `train`.
        project_folder: Folder of the project in that image.
        training_hours: After which a job is ended.
        spot: Whether they run on spare machines, which may be taken back: a training goes on from its checkpoint.
        terraform: Whether there is a module of Terraform with what surrounds the endpoints: identities and their
            rights, the network, alarms.
        deployers: Who may apply the files: gets the rights for it.
        callers: Who may call the endpoints.
        notify: Address of e-mail, or name of the cloud's own channel, that is told of alarms; without one there are
            none.
    """

    machine: str = ""
    quota: int = 0
    cpu_target: int = 60
    trainings: list[str] = []
    training_image: str = ""
    training_machine: str = ""
    training_command: list[str] = msgspec.field(default_factory=lambda: ["python", "-m", "mainspring"])
    project_folder: str = "/project"
    training_hours: int = 24
    spot: bool = False
    terraform: bool = False
    deployers: list[str] = []
    callers: list[str] = []
    notify: str = ""

    def __post_init__(self) -> None:
        if not 10 <= self.cpu_target <= 95:
            raise ValueError(f"cpu_target is {self.cpu_target}: write a percentage from 10 to 95")
        if not 1 <= self.training_hours <= 24 * 28:
            raise ValueError(f"training_hours is {self.training_hours}: write a number from 1 to 672")
        if self.quota < 0:
            raise ValueError(f"quota is {self.quota}: write a number of cores, or 0")
        if not self.project_folder.startswith("/"):
            raise ValueError(f"project_folder is {self.project_folder!r}: write an absolute path")
        for name in ("machine", "training_machine", "training_image", "project_folder"):
            check_plain(name, getattr(self, name))
        if self.trainings and not (self.training_image and self.training_machine):
            raise ValueError("trainings need training_image and training_machine")
        if not self.terraform and (given := next((each for each in _OF_MODULE if getattr(self, each)), "")):
            raise ValueError(f"{given} is of the module of Terraform: write terraform = true")

    @property
    def notify_address(self) -> str:
        """The address of e-mail in `notify`; empty if it names a channel."""
        return self.notify if _ADDRESS.fullmatch(self.notify) else ""


def check_plain(name: str, value: str) -> None:
    """Raise if a value has blanks, quotes, `$` or other characters that a shell or a template would read."""
    if not _PLAIN.fullmatch(value):
        raise ValueError(f"{name} is {value!r}: write letters, digits and @ : . _ / + -")
