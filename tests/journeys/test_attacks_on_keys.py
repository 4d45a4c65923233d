"""A coordinator that cheats with keys or with the study: every site refuses, over the wire and by its own rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from fivefold.auth.keys import new_key, read_key, sign
from fivefold.auth.signatures import signed
from fivefold.privacy.secagg.keys import new_pair
from fivefold.protocol import messages as m
from fivefold.protocol.messages import Envelope
from fivefold.study.digest import PURPOSE, canonical, sign_study
from tests.journeys.hostile import SITES, Alter, Consortium, changed, opens_nothing
from tests.journeys.hostile import prepared as prepared
from tests.journeys.hostile import them as them


# ---- 6, 9: keys -----------------------------------------------------------------------------------------------------
def own_keys(whose: Callable[[str], str], sender: str | None = None) -> Alter:
    """The key list with an advert of the coordinator's own making in one site's place."""
    private, pair = new_key(), new_pair()

    def alter(name: str, asked: Envelope) -> Envelope:
        if asked.kind != "share":
            return asked
        place = whose(name)
        honest = m.Share.decode(asked.body).adverts
        mould = m.Advert.decode(Envelope.decode(honest[0]).body)
        advert = replace(mould, seal_key=pair.public, mask_key=new_pair().public)
        false = signed(private, asked.place, sender or place, advert).encode()
        others = [false if Envelope.decode(a).sender == place else a for a in honest]
        return changed(asked, m.Share, adverts=tuple(others) if sender is None else (*honest, false))

    return alter


def test_a_key_of_its_own_in_the_sites_own_place(them: Consortium) -> None:
    hostile = them.attack(own_keys(lambda name: name))
    them.holds(hostile, "share", "SignatureWrong", "signature")


def test_an_older_key_in_the_sites_own_place(them: Consortium) -> None:
    """A key that the site did sign, in another attempt."""
    older: dict[str, bytes] = {}

    def alter(name: str, asked: Envelope) -> Envelope | None:
        if asked.kind != "share":
            return asked
        adverts = m.Share.decode(asked.body).adverts
        if asked.place.attempt == 1:
            older.setdefault(name, adverts[SITES.index(name)])
            return None
        return changed(
            asked, m.Share, adverts=tuple(older[name] if i == SITES.index(name) else a for i, a in enumerate(adverts))
        )

    them.holds(them.attack(alter), "share", "ProtocolViolation", "wrong_place")


def test_a_key_list_without_the_site_itself(them: Consortium) -> None:
    def alter(name: str, asked: Envelope) -> Envelope:
        if asked.kind != "share":
            return asked
        adverts = m.Share.decode(asked.body).adverts
        return changed(asked, m.Share, adverts=tuple(a for a in adverts if Envelope.decode(a).sender != name))

    them.holds(them.attack(alter), "share", "ProtocolViolation", "own_key_altered")


def test_a_key_of_its_own_in_a_peers_place(them: Consortium) -> None:
    hostile = them.attack(own_keys(lambda name: "fir" if name != "fir" else "alder"))
    them.holds(hostile, "share", "SignatureWrong", "signature")


def test_a_peer_that_is_not_in_the_study(them: Consortium) -> None:
    them.holds(them.attack(own_keys(lambda _: "mallory", "mallory")), "share", "ProtocolViolation", "unknown_peer")


def test_a_peers_key_under_another_name(them: Consortium) -> None:
    def alter(name: str, asked: Envelope) -> Envelope:
        if asked.kind != "share":
            return asked
        adverts = list(m.Share.decode(asked.body).adverts)
        peer, other = [i for i, s in enumerate(SITES) if s != name][:2]
        adverts[peer] = adverts[other]
        return changed(asked, m.Share, adverts=tuple(adverts))

    them.holds(them.attack(alter), "share", "ProtocolViolation", "key_list")


def test_a_key_list_without_signatures(them: Consortium) -> None:
    def alter(name: str, asked: Envelope) -> Envelope:
        if asked.kind != "share":
            return asked
        adverts = [Envelope.decode(a) for a in m.Share.decode(asked.body).adverts]
        bare = [a if a.sender == name else replace(a, signature=b"") for a in adverts]
        return changed(asked, m.Share, adverts=tuple(a.encode() for a in bare))

    them.holds(them.attack(alter), "share", "SignatureWrong", "signature")


def test_the_next_rounds_key_list_is_forged(them: Consortium) -> None:
    """Keys of the next round travel with the shares of this one: a false list among them opens nothing either."""

    def alter(name: str, asked: Envelope) -> Envelope:
        if asked.kind != "unmask":
            return asked
        adverts = list(m.Unmask.decode(asked.body).adverts)
        peer = next(i for i, s in enumerate(SITES) if s != name)
        true = Envelope.decode(adverts[peer])
        adverts[peer] = signed(new_key(), true.place, true.sender, true.message()).encode()
        return changed(asked, m.Unmask, adverts=tuple(adverts))

    hostile = them.attack(alter)
    them.holds(hostile, "unmask", "SignatureWrong", "signature")
    opens_nothing(hostile, 1)


# ---- 7: the study altered after approval ----------------------------------------------------------------------------
def enrols_with(study: bytes) -> Alter:
    return lambda name, asked: changed(asked, m.Open, study=study) if asked.kind == "open" else asked


def test_one_byte_of_the_study(them: Consortium) -> None:
    data = them.study.to_bytes()
    at = data.index(b"minimum_persons") + len(b'minimum_persons":')
    hostile = them.attack(enrols_with(data[:at] + b"2" + data[at + 1 :]))
    them.holds(hostile, "open", "StudyAltered", "study_digest")


def test_a_study_signed_by_another_key(them: Consortium) -> None:
    false = them.study._replace(signature=sign(new_key(), canonical(them.study.study), PURPOSE))
    them.holds(them.attack(enrols_with(false.to_bytes())), "open", "SignatureWrong", "study_signature")


def test_a_study_that_the_lead_changed_after_approval(them: Consortium) -> None:
    """Properly signed by the lead itself: nobody approved it."""
    altered = sign_study(replace(them.study.study, title="Another"), read_key(them.out / "lead.key"))
    hostile = them.attack(lambda name, asked: asked, altered)
    them.holds(hostile, "open", "NotApproved", "no_approval")


def test_a_study_under_the_name_of_another(them: Consortium) -> None:
    hostile = them.attack(lambda name, asked: replace(asked, place=replace(asked.place, study="0" * 64)))
    them.holds(hostile, "open", "MessageMalformed", "study_digest")
