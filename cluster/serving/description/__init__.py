"""The API's description: for programs an OpenAPI document, for people a page that shows it.

document    the document, completed by roles, headings and what fields mean
examples    an example of every call
errors      the errors by name
page        the page, and the files that it loads: Swagger UI as its makers publish it (Apache 2.0)
"""
