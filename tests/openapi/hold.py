"""Holds etc/openapi.yaml against the meta-schema of OpenAPI 3.1, and against a running rfw.

    hold.py valid OPENAPI META-SCHEMA
    hold.py requests OPENAPI [MEMBER]   each documented request, with each example of its parameters; the
                                        answers have all members that are documented, but for that one
    hold.py errors OPENAPI TABLE KIND   each request of the table for that kind of server, and its code

rfw serves on 127.0.0.1, and its CA is in ca.crt. What does not hold is printed, and the exit status is 1.
"""

import base64
import http.client
import itertools
import json
import re
import socket
import ssl
import sys
from urllib.parse import quote

import jsonschema
import yaml

METHODS = ["get", "head", "put", "post", "delete", "patch", "options", "trace"]
LOGIN = {"Authorization": "Basic " + base64.b64encode(b"me:secret").decode()}

failures = []


def expect(holds, what):
    """Takes down what does not hold."""
    if not holds:
        failures.append(what)


class Description:
    """The description, and what its references stand for."""

    def __init__(self, path):
        with open(path, encoding="utf-8") as file:
            self.root = yaml.safe_load(file)
        self.resolver = jsonschema.RefResolver("", self.root)

    def deref(self, node):
        while "$ref" in node:
            node = self.resolver.resolve(node["$ref"])[1]
        return node

    def errors(self, schema, value):
        validator = jsonschema.Draft202012Validator(schema, resolver=self.resolver)
        return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]

    def operations(self):
        for path, item in self.root["paths"].items():
            for method in METHODS:
                if method in item:
                    both = item.get("parameters", []) + item[method].get("parameters", [])
                    yield path, method, item[method], [self.deref(one) for one in both]

    def find(self, method, path):
        """The operation of a concrete path: of several that fit, the one with the most literal parts."""
        fitting = []
        for template, other, operation, parameters in self.operations():
            if other == method.lower() and self.fits(template, path, parameters):
                fitting.append((template.count("{"), template, operation, parameters))
        return min(fitting, key=lambda one: one[0], default=None)

    def fits(self, template, path, parameters):
        parts, given = template.strip("/").split("/"), path.strip("/").split("/")
        if len(parts) != len(given):
            return False
        for part, word in zip(parts, given):
            if part.startswith("{"):
                schema = next(one for one in parameters if one["name"] == part[1:-1])["schema"]
                if word.lower() not in schema.get("enum", [word.lower()]):
                    return False
            elif part != word.lower():
                return False
        return True


class Answer:
    """An answer of rfw."""

    def __init__(self, response):
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.media = self.headers.get("content-type", "").split(";")[0]
        self.text = response.read().decode()

    def value(self):
        return json.loads(self.text) if self.media == "application/json" else self.text


class Server:
    """The HTTPS server of rfw, by a connection that is kept."""

    def __init__(self):
        context = ssl.create_default_context(cafile="ca.crt")
        self.connection = http.client.HTTPSConnection("127.0.0.1", 7393, timeout=20, context=context)

    def send(self, method, target, headers=None, body=None):
        self.connection.request(method, target, body, LOGIN if headers is None else headers)
        return Answer(self.connection.getresponse())


def raw(text, port=7390, secure=False):
    """What is answered to bytes, until the server closes the connection or has answered once."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=20)
    context = ssl.create_default_context(cafile="ca.crt")
    with context.wrap_socket(plain, server_hostname="127.0.0.1") if secure else plain as stream:
        stream.sendall(text.encode())
        response = http.client.HTTPResponse(stream)
        response.begin()
        return Answer(response)


def hold(description, responses, answer, what, method="GET"):
    """Holds an answer against the responses that are documented."""
    documented = responses.get(str(answer.status), responses.get("default"))
    if documented is None:
        expect(False, f"{what}: {answer.status} is not documented: {answer.text}")
        return
    documented = description.deref(documented)
    for name, header in documented.get("headers", {}).items():
        header, value = description.deref(header), answer.headers.get(name.lower())
        expect(value is not None, f"{what}: {answer.status} without {name}")
        for error in description.errors(header["schema"], value or ""):
            expect(False, f"{what}: {name}: {error}")
    if method.upper() == "HEAD":
        expect(answer.text == "", f"{what}: a body: {answer.text}")
        return
    content = documented.get("content", {})
    if answer.media not in content:
        expect(False, f"{what}: {answer.status} with {answer.media}, expected {list(content)}")
        return
    for error in description.errors(content[answer.media]["schema"], answer.value()):
        expect(False, f"{what}: {answer.status}: {error} in {answer.text}")


# ---- the description itself ----


def references(node):
    """All references below a node."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for one in node:
            yield from references(one)


def valid(description, schema):
    with open(schema, encoding="utf-8") as file:
        meta = json.load(file)
    for error in jsonschema.Draft202012Validator(meta).iter_errors(description.root):
        expect(False, f"{error.json_path}: {error.message}")
    for reference in set(references(description.root)):
        try:
            description.resolver.resolve(reference)
        except jsonschema.RefResolutionError as error:
            expect(False, f"{reference}: {error}")
    for name, schema in description.root["components"]["schemas"].items():
        try:
            jsonschema.Draft202012Validator.check_schema(schema)
        except jsonschema.SchemaError as error:
            expect(False, f"{name}: {error.message}")
        if schema.get("type") == "object":
            expect(schema.get("additionalProperties") is False, f"{name} admits any member")
        for error in description.errors(schema, schema["example"]) if "example" in schema else []:
            expect(False, f"the example of {name}: {error}")
    ids = [operation["operationId"] for _, _, operation, _ in description.operations()]
    expect(len(ids) == len(set(ids)), "an operationId is there twice")
    for path, method, operation, parameters in description.operations():
        named = {one["name"] for one in parameters if one["in"] == "path"}
        expect(set(re.findall(r"\{(\w+)\}", path)) == named, f"{method} {path}: parameters {named}")
        for parameter in parameters:
            for value in examples(parameter):
                # What stands in a URL is a text, or digits.
                for error in description.errors(parameter["schema"], value):
                    expect(False, f"{method} {path}: {parameter['name']}: {error}")


def examples(parameter):
    """The examples of a parameter, of which each has one."""
    if "example" in parameter:
        return [parameter["example"]]
    return [one["value"] for one in parameter["examples"].values()]


# ---- requests ----

# What a request may be answered that has but one of its parameters, where it needs two, or a body.
LACKING = {"nothing_named", "no_address", "misplaced_parameter"}


def queries(parameters, each_alone):
    """The queries of an operation: none, all parameters together, and perhaps each example alone."""
    query = [one for one in parameters if one["in"] == "query"]
    needed = [[(one["name"], value) for value in examples(one)] for one in query if one.get("required")]
    others = [one for one in query if not one.get("required")]
    for start in itertools.product(*needed):
        yield list(start)
        for one in others if each_alone else []:
            for value in examples(one):
                yield [*start, (one["name"], value)]
        for left_out in ["", "dry"]:
            yield [*start, *((one["name"], examples(one)[0]) for one in others if one["name"] != left_out)]


def target_of(path, parameters, query):
    for one in parameters:
        if one["in"] == "path":
            path = path.replace("{" + one["name"] + "}", quote(str(examples(one)[0]), safe=""))
    pairs = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in query)
    return path + ("?" + pairs if pairs else "")


# What is there before, so that the answers tell of it.
SEEDS = [
    "/accept/output/eth0/66.66.66.0/24?reason=partner,%20trusted",
    "/drop/output/any/66.66.66.0/24?list=other&expire=0",
    "/drop/output/eth0/66.66.66.66?list=other",
]

# Members that no answer here has: of errors, and of a chain in forward.chain that is missing.
UNSEEN = {"code", "error", "note"}


def members(value):
    """All names of members of a value."""
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from members(one)


def documented_members(schema):
    """All names of properties below schemas."""
    if isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict):
            yield from schema["properties"]
        schema = list(schema.values())
    if isinstance(schema, list):
        for one in schema:
            yield from documented_members(one)


def requests(description, *unseen):
    server, seen = Server(), set(unseen) | UNSEEN
    for seed in SEEDS:
        expect(server.send("PUT", seed).status == 200, seed)
    # What is put in is there to be read and to be taken out.
    order = ["put", "post", "get", "head", "delete"]
    for path, method, operation, parameters in sorted(description.operations(), key=lambda one: order.index(one[1])):
        body = description.deref(operation.get("requestBody", {}))
        text = body["content"]["text/plain"]["example"] if body else None
        bodies = [text] if not body or body["required"] else [text, None]
        # The others are the same as these, by another method.
        each_alone = method in ["put", "delete"] or method == "get" and "{target}" not in path
        accepts = list(operation["responses"]["200"].get("content", {})) + [None]
        succeeded = 0
        for query, body, accept in itertools.product(queries(parameters, each_alone), bodies, accepts):
            if accept and method != "get":
                continue
            target = target_of(path, parameters, query)
            answer = server.send(method.upper(), target, LOGIN | ({"Accept": accept} if accept else {}), body)
            what = f"{method.upper()} {target}" + (f" as {accept}" if accept else "")
            hold(description, operation["responses"], answer, what, method)
            is_lacking = answer.status == 400 and json.loads(answer.text or "{}").get("code") in LACKING
            expect(answer.status == 200 or is_lacking, f"{what}: {answer.status} {answer.text}")
            if accept and answer.status == 200 and "format" not in dict(query):
                expect(answer.media == accept, f"{what}: {answer.media}")
            if answer.status == 200 and method in ["put", "post", "delete"]:
                is_dry = "dry" in dict(query)
                expect(answer.value().get("dry", False) == is_dry, f"{what}: {answer.text}")
            if method != "head" and answer.media == "application/json":
                seen.update(members(answer.value()))
            succeeded += answer.status == 200
        expect(succeeded > 0, f"{method} {path}: no request of it succeeds")
    grammar(description, server.send("GET", "/").value())
    missing = set(documented_members(description.root["components"]["schemas"])) - seen
    expect(not missing, f"members that no answer has: {missing}")


def variants(text):
    """What a line of the grammar stands for: its alternatives, and what it has in brackets or not."""
    inner = re.search(r"\[([^\[\]]*)\]", text)
    if inner:
        for part in ["", inner[1]]:
            yield from variants(text[: inner.start()] + part + text[inner.end() :])
        return
    choice = re.search(r"\{([^{}]*)\}", text)
    if choice:
        for word in choice[1].split("|"):
            yield from variants(text[: choice.start()] + word + text[choice.end() :])
        return
    yield text


def grammar(description, help_text):
    """Compares the paths with the grammar that rfw tells, and the parameters with those that it tells."""
    met, parameters_met = set(), set()
    for line in help_text["grammar"]:
        methods, _, rest = line.partition(" ")
        if not rest.startswith("/"):
            continue
        path, _, query = rest.split(" ")[0].partition("[?")
        path, _, needed = path.partition("?")
        names = re.findall(r"(\w+)=", query + "&" + needed)
        for method, concrete in itertools.product(methods.split("|"), set(variants(path))):
            words = {"chain": "input", "interface": "eth0", "address": "1.2.3.4", "mask": "24"}
            concrete = "/".join(words.get(word, word) for word in concrete.split("/"))
            found = description.find(method, concrete)
            if found is None:
                expect(False, f"{method} {concrete} of the grammar is not documented")
                continue
            met.add((method.lower(), found[1]))
            known = {one["name"] for one in found[3]}
            expect(known.issuperset(names), f"{method} {concrete}: {names} are not all documented")
    documented = {(method, path) for path, method, _, _ in description.operations()}
    # HEAD is as GET, POST as PUT, and a GET that changes is for a configuration.
    unknown = {one for one in documented - met if one[0] in ["put", "delete"] or "{target}" not in one[1]}
    unknown = {one for one in unknown if one[0] not in ["head", "post"]}
    expect(not unknown, f"not in the grammar: {unknown}")
    for _, _, _, parameters in description.operations():
        parameters_met |= {one["name"] for one in parameters if one["in"] == "query"}
    told = {line.split("=")[0] for line in help_text["parameters"]}
    expect(told == parameters_met, f"parameters: {told ^ parameters_met}")


# ---- errors ----


def rows(table):
    with open(table, encoding="utf-8") as file:
        for line in file:
            if line.strip() and not line.startswith("#"):
                fields = [field.strip() for field in line.rstrip("\n").split("|")]
                yield fields + [""] * (6 - len(fields))


def hold_error(description, answer, status, code, method, path, what):
    if answer.status != int(status) or answer.value().get("code") != code:
        expect(False, f"{what}: expected {status} {code}: {answer.status} {answer.text}")
        return
    found = description.find(method, path.partition("?")[0])
    responses = found[2]["responses"] if found else {}
    if status in ["404", "405"]:
        name = "UnknownPath" if status == "404" else "MethodNotAllowed"
        responses = {status: {"$ref": f"#/components/responses/{name}"}}
    elif not found:
        # A path that is none: as any error of its kind.
        named = description.root["components"]["responses"]
        responses = {status: named["BadRequest"]}
    hold(description, responses, answer, what)


def errors(description, table, kind):
    server, codes = Server(), set()
    for own, status, code, request, header, body in rows(table):
        if own == kind:
            method, path = request.split(" ")
            given = dict(pair.split(": ") for pair in [header] if pair)
            headers = {} if "no login" in given else LOGIN | given
            body = (None if not body else body.replace("\\n", "\n")) if body != "-" else ""
            answer = server.send(method, path, headers, body)
            hold_error(description, answer, status, code, method, path, f"{request} {header}")
        codes.add(code)
    if kind == "sets":
        codes |= unread(description)
        known = set(description.root["components"]["schemas"]["Error"]["properties"]["code"]["enum"])
        expect(codes == known, f"codes without a request, or a request without a code: {codes ^ known}")


def unread(description):
    """Requests that can't be read, or that have to wait. Gives their codes."""
    login = f"Authorization: {LOGIN['Authorization']}\r\n"
    start = f"GET /list HTTP/1.1\r\nHost: localhost\r\n{login}"
    golden = [
        ("400", "malformed", "GET /list HTTP/1.1\r\nHost: localhost\r\nx\r\n\r\n"),
        ("431", "head_too_large", start + "X: " + "x" * 9000 + "\r\n\r\n"),
        ("505", "bad_version", "GET /list HTTP/2.0\r\nHost: localhost\r\n\r\n"),
        ("501", "bad_transfer_coding", start + "Transfer-Encoding: gzip, chunked\r\n\r\n"),
        ("413", "body_too_large", start.replace("GET /list", "PUT /drop/input/any") + "Content-Length: 99999999\r\n\r\n"),
        ("421", "wrong_host", "GET /list HTTP/1.1\r\nHost: example.org\r\n\r\n"),
        ("408", "too_slow", "GET /list HTTP/1.1\r\n"),
    ]
    for status, code, text in golden:
        method, path = text.split(" ")[:2]
        hold_error(description, raw(text), status, code, method, path, repr(text[:60]))
    wrong = f"GET /list HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Basic {'bWU6eA=='}\r\n\r\n"
    for _ in range(10):
        hold_error(description, raw(wrong, 7393, True), "401", "wrong_credentials", "GET", "/list", "a wrong password")
    waiting = []
    context = ssl.create_default_context(cafile="ca.crt")
    for _ in range(9):
        stream = socket.create_connection(("127.0.0.1", 7393), timeout=20)
        waiting.append(context.wrap_socket(stream, server_hostname="127.0.0.1"))
        waiting[-1].sendall(wrong.encode())
    hold_error(description, raw(wrong, 7393, True), "429", "too_many_tries", "GET", "/list", "one try more")
    for stream in waiting:
        stream.close()
    return {code for _, code, _ in golden} | {"wrong_credentials", "too_many_tries"}


def main(what, path, *rest):
    {"valid": valid, "requests": requests, "errors": errors}[what](Description(path), *rest)
    for failure in failures[:20]:
        print(failure[:1000])
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
