"""What the container tools say when they cannot fetch an image, and which cure it has: word for word as Apptainer 1.4.5 said it, and
SingularityCE 4.1.1 in the same words, of servers that answered so.
"""

import pytest
from mlwf.image.base.pulled import _cure
from mlwf.image.base.source import parse_base

ORAS = "FATAL:   While pulling image from oci registry: error fetching image to cache: failed to get checksum for {source}: "
LIBRARY = "FATAL:   While pulling library image: error fetching image: "
CONFIG = "FATAL:   Unable to get library client configuration: "
LOGIN, LIBRARY_LOGIN, NAME, LIBRARY_NAME = "'docker login'", "remote login", "Check the name and the tag.", "remote list"
NETWORK, WAIT, NOTHING = "the network", "wait and try again", ""
DEAD = 'Get "https://127.0.0.1:9/v2/": dial tcp 127.0.0.1:9: connect: connection refused; '
DEAD += 'Get "http://127.0.0.1:9/v2/": dial tcp 127.0.0.1:9: connect: connection refused'


def cure(source: str, said: str) -> str:
    return _cure(parse_base(source), said.format(source=source) + "\n", "apptainer", {})


@pytest.mark.parametrize(
    ("said", "helps"),
    [
        ("GET http://127.0.0.1:5000/v2/p/x/manifests/1: UNAUTHORIZED: authentication required", LOGIN),
        ("GET http://127.0.0.1:5000/v2/p/x/manifests/1: DENIED: requested access to the resource is denied", LOGIN),
        ("GET http://127.0.0.1:5000/v2/p/x/manifests/1: unexpected status code 403 Forbidden: <html>no</html>", LOGIN),
        ("GET http://127.0.0.1:5000/v2/p/x/manifests/1: MANIFEST_UNKNOWN: manifest unknown", NAME),
        ("GET http://127.0.0.1:5000/v2/p/x/manifests/1: NAME_UNKNOWN: repository name not known to registry", NAME),
        ("GET http://127.0.0.1:5000/v2/p/x/manifests/1: NOT_FOUND: artifact lib/x:1 not found", NAME),
        ("GET http://127.0.0.1:5000/v2/p/x/manifests/1: unexpected status code 404 Not Found: <html>gone</html>", NAME),
        ("GET http://127.0.0.1:5000/v2/p/x/manifests/1: TOOMANYREQUESTS: too many", WAIT),
        ("GET http://127.0.0.1:5000/v2/p/x/manifests/1: unexpected status code 500 Internal Server Error: key not found", NOTHING),
        (DEAD, NETWORK),
        ('Get "https://no.such/v2/": dial tcp: lookup no.such on 10.255.255.53:53: no such host', NETWORK),
        ('Get "https://registry.example/v2/": Forbidden', NETWORK),  # of a proxy
        ('Get "https://registry.example/v2/": Proxy Authentication Required', NETWORK),
        ('Get "https://127.0.0.1:5000/v2/": http: server gave HTTP response to HTTPS client', "--no-https"),
        (
            'Get "https://registry.example/v2/": tls: failed to verify certificate: x509: certificate signed by unknown authority',
            "SSL_CERT_FILE",
        ),
    ],
)
def test_what_a_registry_says_has_its_cure(said: str, helps: str) -> None:
    told = cure("oras://127.0.0.1:5000/p/x:1", ORAS + said)
    assert helps in told
    assert bool(told) is bool(helps)


@pytest.mark.parametrize(
    ("said", "helps"),
    [
        (LIBRARY + "request did not succeed: this collection is for its members (401 Unauthorized)", LIBRARY_LOGIN),
        (LIBRARY + "image does not exist in the library: a/b/zz:1 (amd64)", LIBRARY_NAME),
        (LIBRARY + "request did not succeed: the store of images was not found (500 Internal Server Error)", NOTHING),
        (CONFIG + "no default remote with library client in use (see https://apptainer.org/docs/user/latest/endpoint.html)", "remote add"),
        (CONFIG + "unable to get library service URI: error making request to server: "
         'Get "https://library.example/assets/config/config.prod.json": Forbidden', NETWORK),
    ],
)  # fmt: skip
def test_what_a_library_says_has_its_cure(said: str, helps: str) -> None:
    told = cure("library://a/b/zz:1", said)
    assert helps in told
    assert bool(told) is bool(helps)


@pytest.mark.parametrize("name", ["forbidden", "denied/not-found", "timeout", "unauthorized"])
def test_an_image_may_be_called_as_it_likes(name: str) -> None:
    assert NETWORK in cure(f"oras://127.0.0.1:9/p/{name}:1", ORAS + DEAD)
    boom = f"GET http://127.0.0.1:5000/v2/{name}/x/manifests/1: unexpected status code 500 Internal Server Error"
    assert cure(f"oras://127.0.0.1:5000/{name}/x:1", ORAS + boom) == NOTHING
    assert LIBRARY_NAME in cure(f"library://{name}/b/c:1", LIBRARY + f"image does not exist in the library: {name}/b/c:1 (amd64)")
    assert LIBRARY_NAME in cure(f"library://{name}", LIBRARY + f"image does not exist in the library: {name}:latest (amd64)")
