"""A server's files on the host: whole or not there, and not trusted where code in a box could have written them."""
