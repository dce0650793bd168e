"""The OpenAPI document, derived from the options and the route table."""
