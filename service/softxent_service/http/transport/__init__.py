"""Transport: the HTTP/1.1 protocol, its limits on connections, bulk bodies."""
