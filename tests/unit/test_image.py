from __future__ import annotations

import random
import string

import pytest

from workflows.image import (
    BuildIdentity,
    BuildName,
    CommitSHA,
    ImageDigest,
    ImageName,
    attempt_of,
    build_name,
    image_name,
    is_build_name,
    is_digest,
    pinned,
    safe_slug,
    split_tag,
    with_attempt,
)

SHA = CommitSHA("50533eb470ee6c24e872043d30b2fee463d6943f")

# The worked examples of ../shared/reference/binderhub.md 3.4.
BINDERHUB = [
    ("r2d-", "binder-examples-requirements", "r2d-binder-2dexamples-2drequirements-55ab5c"),
    ("", "https://github.com/binder-examples/conda", "https-3a-2f-2fgithub-2ecom-2fbinder-2dexamples-2fconda-3ffdf0"),
    ("", "gitlab_-org-gitlab_-foss", "gitlab-5f-2dorg-2dgitlab-5f-2dfoss-a53a80"),
]

SLUGS = [
    "a",
    "-",
    "---",
    "A-B_c",
    "x" * 500,
    "12345678",
    "abcdef12-12345678",
    "o-1234567-abcdef12",
    "o-1234567-abcdef12-2",
    "build-a-1-00000000-3",
    "https://example.org/somebody/something.git",
    "é/ü",
    "",
]


def random_slugs(count: int) -> list[str]:
    # Letters that look like the end of a name come often: that is where a name could be misread.
    source = random.Random(20261123)
    return [
        "".join(source.choices("0123456789abcdef-" * 3 + string.printable, k=source.randint(1, 60)))
        for _ in range(count)
    ]


def identity(image: str = "x:y", commit: str = SHA, options: str = "") -> BuildIdentity:
    return BuildIdentity(image=ImageName(image), commit=CommitSHA(commit), options=options)


@pytest.mark.parametrize(("prefix", "slug", "name"), BINDERHUB)
def test_images_are_named_as_binderhub_names_them(prefix, slug, name):
    assert image_name(prefix, slug, SHA) == f"{name}:{SHA}"


def test_an_images_name_keeps_to_the_limit_with_every_prefix():
    for prefix in ("", "localhost/argosy/", "registry.example.org:5000/project/r2d-"):
        name, tag = split_tag(image_name(prefix, "x" * 500, SHA))
        assert len(name) == 255
        assert tag == SHA


def test_underscores_and_capitals_vanish_from_prefix_and_tag_too():
    assert image_name("Host/My_", "o-r", "A_B") == f"host/my-{safe_slug('o-r', limit=247)}:a-b"


def test_slugs_that_differ_only_where_they_are_cut_differ():
    assert safe_slug("x" * 300 + "a", limit=50) != safe_slug("x" * 300 + "b", limit=50)
    assert len(safe_slug("x" * 300, limit=50)) == 50


@pytest.mark.parametrize(
    ("image", "parts"),
    [
        ("name", ("name", "latest")),
        ("name:tag", ("name", "tag")),
        ("host:5000/name", ("host:5000/name", "latest")),
        ("host:5000/project/name:tag", ("host:5000/project/name", "tag")),
    ],
)
def test_a_port_is_never_taken_for_a_tag(image, parts):
    assert split_tag(image) == parts


def test_a_launch_names_tag_and_digest():
    digest = ImageDigest("sha256:" + "0" * 64)
    assert pinned(ImageName("a:b"), digest) == f"a:b@{digest}"


@pytest.mark.parametrize(
    "text", ["", "sha256:", "sha256:" + "0" * 63, "sha256:" + "G" * 64, "sha256:" + "0" * 64 + "\n"]
)
def test_what_is_no_digest_is_told_apart(text):
    assert not is_digest(text)
    assert is_digest("sha256:" + "0" * 64)


@pytest.mark.parametrize("slug", [*SLUGS, *random_slugs(500)])
def test_every_builds_name_is_one_and_gives_its_attempt_back(slug):
    first = build_name(slug, identity(slug))
    assert is_build_name(first)
    assert attempt_of(first) == 1
    for attempt in (1, 2, 9, 10, 19, 100, 999, 1000, 123456):
        name = build_name(slug, identity(slug), attempt)
        assert is_build_name(name)
        assert len(name) <= 63
        assert attempt_of(name) == attempt
        assert with_attempt(first, attempt) == name
        assert with_attempt(name, 1) == first
        assert with_attempt(name, attempt + 1) == build_name(slug, identity(slug), attempt + 1)


def test_builds_names_are_dns_labels():
    for slug in SLUGS:
        name = build_name(slug, identity(slug), 12)
        assert name.isascii()
        assert name == name.lower()
        assert set(name) <= set(string.ascii_lowercase + string.digits + "-")
        assert not name.startswith("-")
        assert not name.endswith("-")


def test_the_identity_is_image_commit_and_options_and_nothing_else():
    base = identity()
    assert base.digest() == identity().digest()
    others = [identity(image="x:z"), identity(commit="0" * 40), identity(options="{}")]
    others.append(BuildIdentity(image=base.image, commit=base.commit, environment="e"))
    assert len({each.digest() for each in [base, *others]}) == 5


def test_fields_of_an_identity_cannot_run_into_one_another():
    one = BuildIdentity(image=ImageName("a"), commit=CommitSHA("bc"))
    other = BuildIdentity(image=ImageName("ab"), commit=CommitSHA("c"))
    assert one.digest() != other.digest()


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "-a",
        "a-",
        "../build-a-1234567-abcdef12",
        "build-a-1234567-abcdef12/..",
        "build-a-1234567-abcdef12\n",
        "build-A-1234567-abcdef12",
        "build-a.b-1234567-abcdef12",
        "build_a",
        "ä",
        "a" * 64,
    ],
)
def test_what_is_no_builds_name_reaches_no_path(text):
    assert not is_build_name(text)
    assert attempt_of(BuildName(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "nightly-1795555500",
        "argosy-prebuild-x7k2p",
        "7",
        "a" * 63,
        "build-a-1234567-abcdef12-1",
        "build-a-1234567-a-02",
    ],
)
def test_what_a_workflow_is_called_by_hand_is_a_name_of_one_attempt(text):
    assert is_build_name(text)
    assert attempt_of(BuildName(text)) == 1
