"""What export, publish and image share: files on their way from a store or a server, and the folder that appears whole."""
