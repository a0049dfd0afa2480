"""Holds events against the schema of OCSF 1.5.0: `ocsf_events.py FILE` prints how many of each class, and what is wrong.

The schema is the one that a package of models carries, with its dictionary; its inheritance is resolved here. Fields that
nobody knows, types, enumerations, what is required, and constraints are looked at, in all depths.
"""

import collections
import json
import pathlib
import sys

import ocsf

SCHEMA = json.loads((pathlib.Path(ocsf.__path__[0]) / "schemas" / "v1_5_0.json").read_text())
DICTIONARY = SCHEMA["dictionary"]["attributes"]
CATEGORIES = {"system": 1, "findings": 2, "iam": 3, "network": 4, "discovery": 5, "application": 6, "remediation": 7, "unmanned_systems": 8}
# What the profile adds; this copy of the schema names profiles and does not carry them.
PROFILES = {"security_control": ["action", "action_id", "disposition", "disposition_id", "authorizations", "policy"]}
# Written into every class when the schema is compiled.
COMPILED = ["class_uid", "category_uid", "type_uid"]
INTEGERS = ["integer_t", "long_t", "timestamp_t", "port_t"]

problems = collections.Counter()


def ancestry(kind, name):
    while name in SCHEMA[kind]:
        yield SCHEMA[kind][name]
        name = SCHEMA[kind][name].get("extends")


def attributes(kind, name):
    merged, constraints = {}, {}
    for item in reversed(list(ancestry(kind, name))):
        for key, own in item.get("attributes", {}).items():
            if key.startswith("$"):
                continue
            known = merged.get(key, DICTIONARY.get(key, {}))
            values = {**known.get("enum", {}), **own.get("enum", {})}
            merged[key] = {**known, **{field: value for field, value in own.items() if value is not None}, "enum": values}
        constraints = item.get("constraints") or constraints
    return merged, constraints


def number(name):  # of a class whose category is known
    category = next(item["category"] for item in ancestry("events", name) if "category" in item)
    return CATEGORIES[category] * 1000 + SCHEMA["events"][name]["uid"]


def look(value, kind, name, path, profiles=()):
    known, constraints = attributes(kind, name)
    for profile in profiles:
        known.update({key: DICTIONARY[key] for key in PROFILES[profile] if key not in known})
    for key, member in value.items():
        attribute = known.get(key)
        if attribute is None:
            problems[f"{path}.{key}: {name} has no such field"] += 1
            continue
        if bool(attribute.get("is_array")) != isinstance(member, list):
            problems[f"{path}.{key}: a list where there should be none, or none"] += 1
            continue
        for one in member if isinstance(member, list) else [member]:
            look_at_one(one, attribute, f"{path}.{key}", key)
    for key, attribute in known.items():
        if attribute.get("requirement") == "required" and not attribute.get("profile") and key not in value:
            problems[f"{path}: {name} requires {key}"] += 1
    for constraint, fields in constraints.items():
        have = sum(field in value for field in fields)
        if (constraint == "at_least_one" and have < 1) or (constraint == "just_one" and have != 1):
            problems[f"{path}: {name} wants {constraint} of {fields}"] += 1


def look_at_one(one, attribute, path, key):
    kind = attribute.get("type")
    inner = attribute.get("object_type") or (kind if kind in SCHEMA["objects"] else None)
    if inner:
        if not isinstance(one, dict):
            problems[f"{path}: no object"] += 1
        elif inner != "object":
            look(one, "objects", inner, path)
    elif attribute.get("enum") and key not in COMPILED:
        if str(one) not in attribute["enum"]:
            problems[f"{path}: {one} is not among its values"] += 1
    elif kind in INTEGERS:
        if not isinstance(one, int) or isinstance(one, bool):
            problems[f"{path}: {one!r} is no {kind}"] += 1
    elif kind == "boolean_t":
        if not isinstance(one, bool):
            problems[f"{path}: {one!r} is no {kind}"] += 1
    elif kind not in (None, "json_t", "float_t") and not isinstance(one, str):
        problems[f"{path}: {one!r} is no {kind}"] += 1


CLASSES = {number(name): name for name in SCHEMA["events"] if "uid" in SCHEMA["events"][name]}
seen = collections.Counter()
for line in open(sys.argv[1], encoding="utf-8"):
    event = json.loads(line)
    name = CLASSES.get(event["class_uid"])
    if name is None:
        problems[f"there is no class {event['class_uid']}"] += 1
        continue
    seen[name] += 1
    if event["category_uid"] * 1000 != event["class_uid"] // 1000 * 1000:
        problems[f"{name}: category {event['category_uid']}"] += 1
    if event["type_uid"] != event["class_uid"] * 100 + event["activity_id"]:
        problems[f"{name}: type {event['type_uid']}"] += 1
    look(event, "events", name, name, event["metadata"].get("profiles", []))
print(json.dumps({"seen": seen, "problems": sorted(problems)}))
