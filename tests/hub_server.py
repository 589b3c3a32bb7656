"""A small Hugging Face Hub in this process: it speaks as much of the protocol as models need.

Repositories, commits, large files by the LFS protocol, private and gated models, and the answers to what it refuses.
"""
import base64
import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

LICENCES = {"mit", "apache-2.0", "cc-by-4.0"}


def refused(status: int, code: str) -> Response:
    "Answer as the Hub does when something is not there, or not for this account."
    return JSONResponse({"error": code}, status, {"X-Error-Code": code, "X-Error-Message": code})


class Hub:
    "The repositories, and what was asked for."
    def __init__(self) -> None:
        self.repos: dict[str, dict] = {}     # name: private, gated, and commits, the latest last
        self.large: dict[str, bytes] = {}    # SHA-256: content
        self.asked: list[str] = []           # methods and paths
        self.sizes: dict[str, int] = {}      # sizes to claim, by file
        self.address = ""
        models = "/api/models/{user}/{name}"
        self.app = Starlette(routes=[
            Route("/api/validate-yaml", self.validate, methods=["POST"]),
            Route("/api/repos/create", self.create, methods=["POST"]),
            Route(f"{models}/preupload/{{revision}}", self.preupload, methods=["POST"]),
            Route(f"{models}/commit/{{revision}}", self.commit, methods=["POST"]),
            Route(f"{models}/revision/{{revision:path}}", self.info), Route(models, self.info),
            Route("/{user}/{name}.git/info/lfs/objects/batch", self.batch, methods=["POST"]),
            Route("/large/{oid}", self.upload, methods=["PUT"]),
            Route("/{user}/{name}/resolve/{revision}/{file:path}", self.resolve, methods=["GET", "HEAD"])])

    def add(self, repo: str, files: dict[str, bytes], **settings: bool) -> str:  # the commit
        "Commit files."
        known = self.repos.setdefault(repo, {"private": False, "gated": False, "commits": []} | settings)
        before = known["commits"][-1][1] if known["commits"] else {}
        oid = hashlib.sha1(f"{repo} {len(known['commits'])}".encode()).hexdigest()
        known["commits"].append((oid, before | files))
        return oid

    def files(self, repo: str) -> dict[str, bytes]: return self.repos[repo]["commits"][-1][1]

    def find(self, request: Request) -> tuple[Response | None, str, dict[str, bytes]]:  # a refusal, a commit, its files
        "Find the revision that a request names, if its account may read it."
        self.asked.append(f"{request.method} {request.url.path}")
        user, name = request.path_params["user"], request.path_params["name"]
        repo, token = self.repos.get(f"{user}/{name}"), request.headers.get("authorization", "")
        own = token == f"Bearer hf_{user}"
        if repo is None or (repo["private"] and not own): return refused(404 if token else 401, "RepoNotFound"), "", {}
        if repo["gated"] and not own: return refused(403, "GatedRepo"), "", {}
        wanted = request.path_params.get("revision", "main")
        found = repo["commits"][-1:] if wanted == "main" else [one for one in repo["commits"] if one[0] == wanted]
        return (None, *found[0]) if found else (refused(404, "RevisionNotFound"), "", {})

    async def validate(self, request: Request) -> Response:
        content = (await request.json())["content"]
        licence = content.partition("license: ")[2].partition("\n")[0]
        if licence in LICENCES: return JSONResponse({"errors": [], "warnings": []})
        return JSONResponse({"errors": [{"message": f'"license" must be one of {sorted(LICENCES)}'}]}, 400)

    async def create(self, request: Request) -> Response:
        asked = await request.json()
        user, repo = asked["organization"], f"{asked['organization']}/{asked['name']}"
        if request.headers.get("authorization") != f"Bearer hf_{user}": return refused(403, "Forbidden")
        if repo in self.repos: return JSONResponse({"error": "exists", "url": f"{self.address}/{repo}"}, 409)
        private = asked.get("private") is True or asked.get("visibility") == "private"
        self.add(repo, {".gitattributes": b""}, private=private)
        return JSONResponse({"url": f"{self.address}/{repo}"})

    async def preupload(self, request: Request) -> Response:
        files = (await request.json())["files"]
        return JSONResponse({"files": [
            {"path": one["path"], "shouldIgnore": False,
             "uploadMode": "lfs" if one["path"].endswith(".safetensors") else "regular"} for one in files]})

    async def batch(self, request: Request) -> Response:
        objects = (await request.json())["objects"]
        return JSONResponse({"transfer": "basic", "objects": [
            {**one, "actions": {"upload": {"href": f"{self.address}/large/{one['oid']}"}}} for one in objects]})

    async def upload(self, request: Request) -> Response:
        content = await request.body()
        assert hashlib.sha256(content).hexdigest() == request.path_params["oid"]
        self.large[request.path_params["oid"]] = content
        return Response()

    async def commit(self, request: Request) -> Response:
        lines = [json.loads(line) for line in (await request.body()).splitlines()]
        files = [(one["key"], one["value"]) for one in lines]
        small = {file["path"]: base64.b64decode(file["content"]) for kind, file in files if kind == "file"}
        large = {file["path"]: self.large[file["oid"]] for kind, file in files if kind == "lfsFile"}
        repo = f"{request.path_params['user']}/{request.path_params['name']}"
        oid = self.add(repo, small | large)
        return JSONResponse({"commitUrl": f"{self.address}/{repo}/commit/{oid}", "commitOid": oid})

    async def info(self, request: Request) -> Response:
        refusal, oid, files = self.find(request)
        if refusal: return refusal
        repo = f"{request.path_params['user']}/{request.path_params['name']}"
        siblings = [{"rfilename": name, "size": self.sizes.get(name, len(content))} for name, content in files.items()]
        return JSONResponse({"id": repo, "modelId": repo, "sha": oid, "private": self.repos[repo]["private"],
                             "siblings": siblings, "tags": []})

    async def resolve(self, request: Request) -> Response:
        refusal, oid, files = self.find(request)
        if refusal: return refusal
        content = files.get(request.path_params["file"])
        if content is None: return refused(404, "EntryNotFound")
        return Response(content, headers={"X-Repo-Commit": oid, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'})

    @contextmanager
    def serving(self) -> Iterator["Hub"]:
        "Answer on a free port of this machine until the block ends."
        server = uvicorn.Server(uvicorn.Config(self.app, port=0, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started: time.sleep(0.01)
        self.address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        try: yield self
        finally:
            server.should_exit = True
            thread.join()
