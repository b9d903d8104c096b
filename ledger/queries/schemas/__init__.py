"""The types of the answers; the OpenAPI document is made from them."""
