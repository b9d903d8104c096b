"""The HTTP API: routes, access, problems, the OpenAPI document and the console's pages."""
