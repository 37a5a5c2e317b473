"""The clients of the trust matrix, each as a command that fetches one page and says what became of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

PYTHON = {
    "urllib": "import urllib.request as u; print(u.urlopen(url).status)",
    "urllib3": "import urllib3; print(urllib3.PoolManager(retries=False).request('GET', url).status)",
    "requests": "import requests; print(requests.get(url).status_code)",
    "httpx": "import httpx; print(httpx.get(url).status_code)",
    "aiohttp": """
import aiohttp, asyncio
async def get():
    async with aiohttp.ClientSession() as session, session.get(url) as got: print(got.status)
asyncio.run(get())""",
    "boto3": """
import boto3, botocore.config
c = botocore.config.Config(retries={'max_attempts': 0})
s3 = boto3.client('s3', endpoint_url=url, aws_access_key_id='a', aws_secret_access_key='b', region_name='r', config=c)
try: s3.list_buckets()
except botocore.parsers.ResponseParserError: pass""",
    "openai": """
import openai
openai.OpenAI(base_url=url, api_key='k', max_retries=0).models.list()""",
    "grpc": """
import grpc
channel = grpc.secure_channel(url.partition('//')[2].partition('/')[0], grpc.ssl_channel_credentials())
channel.unary_unary('PATH')(b'', timeout=5)""",
}
NODE_FETCH = "fetch('URL').then(r => console.log(r.status)).catch(e => { console.error(e); process.exit(1) })"
PHP_CURL = """
$c = curl_init('URL'); $o = curl_exec($c); echo curl_getinfo($c)['http_code'], curl_error($c);
exit($o === false ? 1 : 0);"""
ASKING = "printf 'GET PATH HTTP/1.1\\r\\nHost: HOST\\r\\nConnection: close\\r\\n\\r\\n'"
# With the end of what it is told gnutls-cli hangs up, whether or not there is an answer: this pipe has none.
ENDLESS = f"mkfifo FOLDER/asking.$$ && exec 3<>FOLDER/asking.$$ && rm FOLDER/asking.$$ && {ASKING} >&3 &&"
FETCH = {
    "curl": ("curl", "-sS", "URL"),
    "wget": ("wget", "-nv", "-O-", "--tries=1", "URL"),
    "git": ("git", "ls-remote", "URL"),
    "openssl": ("sh", "-c", f"{ASKING} | openssl s_client -quiet -verify_return_error -connect HOST:PORT"),
    "gnutls-cli": ("sh", "-c", f"{ENDLESS} gnutls-cli -p PORT HOST <&3"),
    **{name: (sys.executable, "-c", f"url = 'URL'\n{text}") for name, text in PYTHON.items()},
    "pip": (sys.executable, "-m", "pip", "-vv", "download", "--retries", "0", "--no-deps", "--index-url", "URL",
            "tiny"),
    "uv": ("uv", "pip", "install", "--no-cache", "--target", "FOLDER/uv", "--index-url", "URL", "tiny"),
    "node fetch": ("node", "-e", NODE_FETCH),
    "node https": ("node", "-e", "require('https').get('URL', r => { console.log(r.statusCode); r.resume() })"),
    "npm": ("npm", "view", "--fetch-retries=0", "--registry", "URL", "tiny"),
    "deno": ("deno", "eval", "console.log((await fetch('URL')).status)"),
    "bun": ("bun", "-e", "console.log((await fetch('URL')).status)"),
    "java": ("java", "FOLDER/Fetch.java", "URL"),
    "go": ("FOLDER/fetch", "URL"),
    "cargo": ("cargo", "fetch", "--manifest-path", "FOLDER/Cargo.toml"),
    "ruby": ("ruby", "-rnet/http", "-e", "puts Net::HTTP.get_response(URI('URL')).code"),
    "php streams": ("php", "-r", "exit(file_get_contents('URL') === false ? 1 : 0);"),
    "php curl": ("php", "-r", PHP_CURL),
    "chromium": ("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                 "--disable-background-networking", "--disable-component-update", "--disable-sync",
                 "--user-data-dir=FOLDER/profile", "--dump-dom", "URL"),
}
JAVA = """
import java.net.URI; import java.net.http.*;
public class Fetch { public static void main(String[] a) throws Exception {
  System.out.println(HttpClient.newHttpClient().send(HttpRequest.newBuilder(URI.create(a[0])).build(),
                                                     HttpResponse.BodyHandlers.ofString()).statusCode()); } }
"""
GO = """
package main
import ("net/http"; "os")
func main() {
  r, err := http.Get(os.Args[1])
  if err != nil { println(err.Error()); os.Exit(1) }
  println(r.StatusCode)
}
"""
CARGO = """
[package]
name = "empty"
version = "0.1.0"
edition = "2021"
[lib]
path = "lib.rs"
[dependencies]
tiny = { version = "1", registry = "test" }
"""


def command(client: str, url: str, folder: Path, path: str | None = None) -> list[str]:
    """The command line of a client. `folder` is where `prepare` put what some of them need; `path` what a client
    asks for that has methods in the place of URLs.
    """
    host, _, rest = url.partition("://")[2].partition("/")
    name, _, port = host.partition(":")
    known = {"URL": url, "PORT": port or "443", "HOST": name, "FOLDER": str(folder), "PATH": path or f"/{rest}"}
    words = list(FETCH[client])
    for key, value in known.items():
        words = [word.replace(key, value) for word in words]
    return words


def prepare(folder: Path) -> None:
    """Write what clients read that take no URL on their command line."""
    (folder / "Fetch.java").write_text(JAVA)
    (folder / "Cargo.toml").write_text(CARGO)
    (folder / "lib.rs").touch()


def missing(client: str, folder: Path, environment: Mapping[str, str]) -> str | None:
    """Why the client cannot be had here. Go's is built where it can be."""
    tool = {"go": "go", "openssl": "openssl", "gnutls-cli": "gnutls-cli"}.get(client, FETCH[client][0])
    if shutil.which(tool) is None:
        return f"{tool} is not installed"
    if client == "pip" and subprocess.run([tool, "-m", "pip", "--version"], capture_output=True).returncode:
        return "this Python has no pip"
    if client == "php curl" and subprocess.run(["php", "-r", "curl_version();"], capture_output=True).returncode:
        return "this PHP has no curl"
    if client == "go" and not (folder / "fetch").exists():
        (folder / "fetch.go").write_text(GO)
        subprocess.run(["go", "build", "-o", folder / "fetch", folder / "fetch.go"], check=True,
                       env={**environment, "GO111MODULE": "off", "CGO_ENABLED": "0"})
    return None
