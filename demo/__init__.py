"""The demo: the whole product on loopback, with an embedded object store. Development and trying only."""
