"""What Python reads where the command line names its options."""

import pytest
from hypothesis import given, strategies

import mimic_keras
from mimic_keras.experiment.places import Place
from mimic_keras.experiment.problems import Problems
from mimic_keras.interface.spelling import as_arguments, speaks_python


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("remove it, or choose another --home", "remove it, or choose another home"),
        (
            "give another name, --set name=NAME, or --replace",
            "give another name, set={'name': 'NAME'}, or replace=True",
        ),
        ("with --set export.minimum_agreement=0.", "with set={'export.minimum_agreement': 0}."),
        ("--set export.publish=false: no", "set={'export.publish': False}: no"),
        ("--set student={name: x}: expected", "set student={name: x}: expected"),
        ("--plugins my_parts.py makes it known", "plugins=['my_parts.py'] makes it known"),
        ("--plugins: no such file: a.py", "plugins: no such file: a.py"),
        ("--cpus_per_task 2 --gpus_per_task 0 need --cluster", "cpus_per_task 2 gpus_per_task 0 need cluster"),
        ("--no_export", "export=False"),
        ("run it with mimic-keras sweep", "run it with mimic_keras.sweep"),
        ("mimic-keras export runs/x publishes it", "mimic_keras.export('runs/x') publishes it"),
        ("upgrade mimic-keras", "upgrade mimic-keras"),
        ("a--b, 1 -- 2, ---, -x", "a--b, 1 -- 2, ---, -x"),
    ],
)
def test_options_become_arguments(message, expected):
    assert as_arguments(message) == expected


@given(strategies.text(alphabet=strategies.characters(exclude_characters="-")))
def test_a_message_without_options_stays_as_it_is(message):
    assert as_arguments(message) == message


def test_the_library_speaks_python_and_the_command_does_not():
    from mimic_keras.interface import api

    with pytest.raises(mimic_keras.InputError, match=r"^plugins: no such file"):
        mimic_keras.validate("quickstart", plugins=["nowhere.py"])
    with pytest.raises(mimic_keras.InputError, match=r"^--plugins: no such file"):
        api.validate("quickstart", plugins=["nowhere.py"])


def test_problems_of_a_file_stay_problems():
    def fail():
        problems = Problems("x.yaml, --set a=1")
        problems.add(Place("loss"), "use --plugins a.py")
        problems.check()

    with pytest.raises(Problems) as raised:
        speaks_python(fail)()
    assert str(raised.value) == "x.yaml, set={'a': 1}: 1 problem\n  loss: use plugins=['a.py']"


def test_the_functions_keep_their_names_and_signatures():
    import inspect

    from mimic_keras.interface import api

    assert mimic_keras.run is mimic_keras.run
    assert inspect.signature(mimic_keras.run) == inspect.signature(api.run)
    assert mimic_keras.run.__doc__ == api.run.__doc__
