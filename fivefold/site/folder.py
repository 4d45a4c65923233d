"""A site's folder: `site.yaml` (policy), `mapping.yaml`, `keys/`, `state/`, and whatever data files it names.

keys/node.key  node.pub  custodian.key  custodian.pub  snapshot.key
state/policy  state/keys  state/approvals  state/snapshots  state/released  state/audit.jsonl
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fivefold.auth import keys
from fivefold.errors import FivefoldError, KeyProblem, PolicyRefuses, RunFolderTaken
from fivefold.governance import custody as custodies
from fivefold.governance.approvals import Approval, check_approval
from fivefold.governance.policy import FILE, Policy
from fivefold.governance.statements import storage, store
from fivefold.records.audit import AuditLog, read_head
from fivefold.site.chain_heads import ALONE, BY_STUDY, compare, note
from fivefold.study.schema import SHORT_NAME

if TYPE_CHECKING:
    from fivefold.data.mapping import Mapping as DataMapping
    from fivefold.study.definition import Study

SECRET_BYTES = 32
PASSPHRASE = "FIVEFOLD_PASSPHRASE"


@dataclass(frozen=True)
class SiteFolder:
    """A site's folder on disk; everything is read when it is asked for, so that a change holds at once."""

    path: Path

    def custody(self, when: datetime | None = None) -> custodies.Custody:
        """The signed policy and the standing of all keys. Raises `PolicyRefuses`, `StatementInvalid`."""
        compare(self.state, ALONE)
        return custodies.custody_of(self.path, (when or datetime.now(UTC)).astimezone(UTC).date())

    def policy(self, when: datetime | None = None) -> Policy:
        return self.custody(when).policy

    def mapping(self) -> DataMapping:
        """Raises `MappingInvalid` with the line."""
        from fivefold.data.mapping import FILE as MAPPING
        from fivefold.data.mapping import Mapping as DataMapping

        return DataMapping.read(self.path / MAPPING)

    def approval(self, study_digest: str, when: datetime | None = None, *, study: Study | None = None) -> Approval:
        """The custodian's approval in force. Raises `NotApproved`, `StatementInvalid`."""
        compare(self.state, (*ALONE, *(f"{kind}/{study_digest}" for kind in BY_STUDY)))
        return check_approval(self.path, study_digest, when or datetime.now(UTC), study=study)

    def node_key(self) -> bytes:
        """The node's private key (32 bytes). Raises `KeyProblem`; where it is not the key of keys/node.pub, or was revoked,
        too."""
        if not (self.keys / "node.key").is_file():
            raise KeyProblem("the site folder has no readable keys/node.key", help="Restore it from a back-up.")
        private = read_private(self.keys / "node.key")
        if keys.public_of(private).hex() != custodies.node_key(self.path):
            raise KeyProblem("keys/node.key and keys/node.pub do not belong together", help="Restore both from a back-up.")
        return private

    def secret(self) -> bytes:
        """The site's own secret (32 bytes), from which snapshots are sealed. Raises `KeyProblem`."""
        try:
            secret = bytes.fromhex((self.keys / "snapshot.key").read_text("ascii").strip())
        except (OSError, ValueError) as error:
            raise KeyProblem("the site folder has no readable keys/snapshot.key", help="Restore it from a back-up.") from error
        if len(secret) != SECRET_BYTES:
            raise KeyProblem("keys/snapshot.key is not 64 hex digits", help="Restore it from a back-up.")
        return secret

    def opt_outs(self, policy: Policy) -> frozenset[str]:
        """Identifiers of the persons who opted out. Raises `PolicyRefuses` where the file that the policy names is not
        there."""
        if policy.opt_outs is None:
            return frozenset()
        path = self.path / policy.opt_outs
        try:
            text = path.read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise PolicyRefuses(
                f"{FILE}, line {policy.line('opt_outs')}: the list of opt-outs cannot be read, so no row is read either",
                rule="opt_outs",
                help="Put the file in its place (one identifier a line, UTF-8); an empty one if nobody opted out.",
            ) from error
        return frozenset(line.strip() for line in text.splitlines() if line.strip())

    @property
    def keys(self) -> Path:
        return self.path / "keys"

    @property
    def state(self) -> Path:
        return self.path / "state"

    @contextmanager
    def audit(self) -> Iterator[AuditLog]:
        """The site's own audit log, signed by the node."""
        log = AuditLog(self.state / "audit.jsonl", self.node_key(), self.name())
        try:
            yield log
        finally:
            log.close()

    def name(self) -> str:
        """The site's name: the owner of its log, or, before there is one, the name that site.yaml gives."""
        head = read_head(self.state / "audit.jsonl")
        return head.owner if head is not None else Policy.read(self.path / FILE).site

    @contextmanager
    def act(self, event: str, **facts: Any) -> Iterator[AuditLog]:
        """Do something that the log must know: its entry is durable before the act, and a failure is an entry too (the public
        part of the error alone). Where the chains of statements end after it is noted too."""
        with self.audit() as log:
            log.write(event, **facts)
            try:
                compare(self.state)
                try:
                    yield log
                finally:
                    note(self.state, log)
            except FivefoldError as error:
                log.write(f"{event} refused", **error.public())
                raise


def opened(path: Path) -> SiteFolder:
    """The site folder at a path. Raises `PolicyRefuses` where there is none."""
    if not (path / FILE).is_file():
        raise PolicyRefuses(
            f"{path} is not a site folder: it has no {FILE}",
            rule="site",
            help="Make one with `fivefold site init DIR --name NAME`.",
        )
    return SiteFolder(path)


def create(
    path: Path,
    name: str,
    *,
    policy: Mapping[str, Any] | None = None,
    mapping: str | None = None,
    custodian: str = "Data custodian",
    now: datetime | None = None,
) -> SiteFolder:
    """A new site folder with fresh keys (node, custodian, snapshots), its policy signed by the custodian.

    `policy` overrides keys of the skeleton (`methods`, `peers`, `event_totals`, …); `mapping` is the text of mapping.yaml.
    Raises `RunFolderTaken` where there is a site already, `StorageFull`, `PolicyRefuses` for overrides that do not fit.
    """
    now = now or datetime.now(UTC)
    if not re.fullmatch(SHORT_NAME, name):
        raise PolicyRefuses(
            f"{name!r} cannot be a site's name",
            rule="site",
            help="Use letters, digits, - and _ only, as studies write it.",
        )
    if (path / FILE).exists() or (path / "keys").exists():
        raise RunFolderTaken(
            f"{path} holds a site already", help="Choose another folder: keys and approvals are never overwritten."
        )
    try:
        for folder in (path / "keys", path / "state"):
            folder.mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise storage(error, path) from error
    public = {}
    for who in ("node", "custodian"):
        private = keys.new_key()
        public[who] = keys.public_of(private).hex()
        keys.write_key(path / "keys" / f"{who}.key", private)
        store(path / "keys" / f"{who}.pub", f"{public[who]}\n".encode(), mode=0o644)
    store(path / "keys" / "snapshot.key", f"{secrets.token_hex(SECRET_BYTES)}\n".encode())
    values = policy_values(name, custodian, public["custodian"], now.date()) | dict(policy or {})
    store(path / FILE, policy_text(values).encode(), mode=0o644)
    if values.get("opt_outs"):
        store(path / str(values["opt_outs"]), b"")
    store(path / "mapping.yaml", (mapping or MAPPING_SKELETON).encode(), mode=0o644)
    custodies.sign_policy(path, read_private(path / "keys" / "custodian.key"), now=now)
    site = SiteFolder(path)
    with site.audit() as log:
        log.write("site made", site=name, node=public["node"], custodian=public["custodian"])
        note(site.state, log)
    return site


def read_private(path: Path) -> bytes:
    """A private key file; its passphrase, where it has one, from the environment. Raises `KeyProblem`."""
    return keys.read_key(path, os.environ.get(PASSPHRASE) if keys.is_encrypted(path) else None)


def rotate_node_key(site: SiteFolder, custodian: bytes) -> str:
    """Give the node a fresh key; the old file is kept beside it. Returns the new public key (hex); the signed statement in
    state/keys goes to leads and peers. Raises `KeyProblem`, `StorageFull`."""
    old, new = site.node_key(), keys.new_key()
    public = keys.public_of(new).hex()
    fresh = site.keys / f"node-{public[:8]}.key"
    site.custody().may_sign(keys.public_of(custodian).hex(), date.today())  # before a key is made that nobody announces
    keys.write_key(fresh, new)
    with site.act("node key rotation", old=keys.public_of(old).hex(), new=public) as log:
        custodies.rotate_node(site.path, old, new, custodian)
        log.rotate(new)
        os.replace(site.keys / "node.key", site.keys / f"node-{keys.public_of(old).hex()[:8]}.old.key")
        os.replace(fresh, site.keys / "node.key")
        store(site.keys / "node.pub", f"{public}\n".encode(), mode=0o644)
    return public


def add_opt_out(site: SiteFolder, person: str) -> bool:
    """Write a person into the list of opt-outs. False where the person stands there already. Raises `PolicyRefuses`,
    `StorageFull`."""
    policy = site.policy()
    if policy.opt_outs is None:
        raise PolicyRefuses(
            f"{FILE} names no list of opt-outs", rule="opt_outs", help="Write `opt_outs: opt-outs.txt`, and sign the policy."
        )
    listed = site.opt_outs(policy)
    if person.strip() in listed:
        return False
    if not person.strip() or not person.isprintable():
        raise PolicyRefuses(
            "an identifier is one line of printable text", rule="opt_outs", help="Write it as the data have it."
        )
    with site.act("opt-out"):
        store(site.path / policy.opt_outs, "".join(f"{p}\n" for p in sorted({*listed, person.strip()})).encode())
    return True


def policy_values(name: str, custodian: str, key: str, today: date) -> dict[str, Any]:
    """The skeleton's values: what a careful site starts from."""
    until = (today + timedelta(days=730)).isoformat()
    return {
        "version": 1,
        "site": name,
        "asset": f"{name}-records",
        "expires": until,
        "custodians": [{"name": custodian, "key": key, "from": today.isoformat(), "until": until}],
        "revoked": [],
        "peers": [],
        "leads": [],
        "methods": ["statistics", "glm", "cox", "kaplan_meier"],
        "steps": [],
        "adversary": "active",
        "minimum_persons": 5,
        "local_minimum": 0,
        "minimum_sites": 3,
        "minimum_difference": 2,
        "colluders": 0,
        "honest": 2,
        "site_totals": "refused",
        "event_totals": "refused",
        "exact_sums": "permitted",
        "budget": {"epsilon": 10.0, "delta": 1e-6},
        "mix_exact_and_noisy": "permitted",
        "user_models": "refused",
        "max_rounds": 500,
        "max_iterations": 25,
        "numbers_per_person": 500,
        "degrees_of_freedom": 10,
        "dominance": 0.5,
        "opt_outs": "opt-outs.txt",
        "people": None,
        "projects": None,
        "settings": None,
        "data": None,
        "tier": None,
    }


COMMENTS = {
    "version": "Raise it by one with every change, then sign: fivefold site sign-policy",
    "asset": "The data asset behind mapping.yaml; copies and versions of the same records share its name.",
    "custodians": "Who may sign policies and approvals, and until when. Never the node's own key.",
    "revoked": "Keys that may no longer sign anything.",
    "peers": "Sites whose node's key was compared by telephone: - {site: basel, fingerprint: 3f1a …}. Only they count.",
    "leads": "Public keys of leads whose studies may be approved; empty: any.",
    "methods": "What may be computed. Everything else is refused.",
    "steps": "Steps that let out anything but a sum, by name; every such step is refused otherwise.",
    "adversary": "active: the coordinator may try anything. curious: it keeps to the protocol (one trip less).",
    "minimum_persons": "Fewer persons in the cohort: no answer. Studies must ask for at least this on totals, too.",
    "local_minimum": "A count of this site's own persons in 1..local_minimum-1 refuses the step. 0: no such rule.",
    "minimum_sites": "At least so many recognised sites in every sum; with two, each would learn the other's.",
    "minimum_difference": "Any two sums over different survivors must differ by so many sites and the colluders; 2 or more.",
    "site_totals": "permitted: this site's own totals may become known (each over at least minimum_persons).",
    "event_totals": "permitted: totals at single event times (daily Kaplan-Meier curves, exact Cox).",
    "exact_sums": "refused: answer only with differential privacy.",
    "budget": "The most that all noisy answers of all studies on the asset may cost together. Lower it to what you can defend.",
    "user_models": "permitted: a study may bring model code of its own, shown at approval and run confined.",
    "mix_exact_and_noisy": "refused: an asset that gave exact sums gives no noisy ones, and the other way round.",
    "numbers_per_person": "All numbers of all rounds of a study, for each person of the cohort.",
    "degrees_of_freedom": "Persons in all, less the parameters of a fit, must be at least this.",
    "dominance": "No person may carry more than this share of a weighted sum.",
    "opt_outs": "One identifier a line; these persons are removed before anything else.",
    "people": "Safe people: {required: [lead, checker], training: [{course: c, roles: [checker]}], terms: v1}. null: none.",
    "projects": "Safe projects: {reviewers: 2, organisations: 2, public_benefit: true, data_sharing: FILE}. null: none.",
    "settings": "Safe settings: {engines: [flower], encryption: true, no_network: true, releases, code}. null: none.",
    "data": "Safe data: {unreadable: 5, missing: 20, deidentification: {file: FILE, sha256: …}}. null: none.",
    "tier": "How closely the asset is held: open, controlled or restricted. The keys above must be as strict as the tier asks.",
}


def policy_text(values: Mapping[str, Any]) -> str:
    """site.yaml with a comment over each key."""
    lines = [
        "# The policy of this site. What it does not permit is refused; a file that does not parse permits nothing.",
        "# Editors complete this file after: fivefold study schema site > site.schema.json",
        "# yaml-language-server: $schema=site.schema.json",
    ]
    for key, value in values.items():
        if key in COMMENTS:
            lines += ["", f"# {COMMENTS[key]}"]
        if isinstance(value, (list, tuple)) and value and isinstance(value[0], Mapping):
            lines += [f"{key}:", *(f"  - {json.dumps(dict(v), ensure_ascii=False)}" for v in value)]
        else:
            lines.append(f"{key}: {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


MAPPING_SKELETON = """\
# Editors complete this file after: fivefold study schema mapping > mapping.schema.json
# yaml-language-server: $schema=mapping.schema.json
#
# How this site's own columns, units and codes become the study's dictionary.
# `fivefold site check STUDY` shows what comes of it, variable by variable.

# Where the rows are. csv: path, delimiter, encoding, decimal, header (true, or the column names).
# parquet: path. sql: url_env (the environment variable that holds the SQLAlchemy URL), and table or query.
source: {kind: csv, path: data.csv}

# The column that identifies a person; {each_row: true} where each row is another person.
person: patient_id

# Cells that mean "not known" in every column; and what a cell that is no value becomes: missing (counted) or refuse.
missing: ["NA", "?"]
on_invalid: missing

variables: {}
  # age: {column: AGE_MONTHS, unit: month}
  # sex: {column: gender, codes: {1: male, 2: female}, missing: [9]}
  # birth: {column: dob, format: "%d.%m.%Y"}
  # hospital: {constant: basel}
  # smoker: {absent: true}
"""
