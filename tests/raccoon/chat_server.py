"""A server of OpenAI's chat completions for the tests: counts requests, answers by script or sensibly by itself.

By hand: `python tests/raccoon/chat_server.py 8765`.
"""

import base64
import http.server
import json
import re
import sys
import threading
import time

import cv2
import numpy as np

GOOD = """Video Description: {what} moves through the scene while the camera stays where it is.

Object Descriptions:
{lines}"""
HINT = re.compile(r"must be in your list:\n((?:\d+\. .*\n?)+)")
CHOICE = re.compile(r"^([A-Z])\. (.*)$", re.MULTILINE)


def sensible(text, images):
    """What a model of good will answers, by the kind of question."""
    if "Answer with one letter" in text:
        label = (re.search(r'the object "(.*?)"', text) or [None, ""])[1].casefold()
        for letter, caption in CHOICE.findall(text):
            if label and label in caption.casefold():
                return letter
        return CHOICE.findall(text)[0][0]
    if "Think of one edit" in text:
        objects = re.findall(r"^(\d+)\. (.*?): ", text, re.MULTILINE)
        return "\n".join(f"{n}. Make the {name} green => {name}: A bright green {name}." for n, name in objects)
    found = HINT.search(text)
    names = re.findall(r"^\d+\. (.*)$", found[1], re.MULTILINE) if found else ["Ground"]
    lines = "\n".join(f"{i}. Bright {name}: A {name} of strong colour." for i, name in enumerate(names, 1))
    return GOOD.format(what=names[0], lines=lines)


class ChatServer:
    """Serves on a free port until `close`.

    ``script`` is a list of steps that are used up one a request, then requests are answered by `sensible`. A step is a
    str (the answer), an int (that status), or a dict: status, headers, body (bytes, sent as it is), text, finish,
    refusal, choices, wait (seconds before the answer), usage.
    """

    def __init__(self, script=(), port=0):
        self.script = list(script)
        self.requests = []
        self.times = []
        self.under_way = self.most_under_way = 0
        self.delay = 0.0
        self._lock = threading.Lock()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                outer._answer(self)

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, handler):
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._lock:
            self.requests.append(
                {"path": handler.path, "headers": {k.lower(): v for k, v in handler.headers.items()}, "body": body}
            )
            self.times.append(time.monotonic())
            step = self.script.pop(0) if self.script else {}
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            self._send(handler, body, step)
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            with self._lock:
                self.under_way -= 1

    def _send(self, handler, body, step):
        if isinstance(step, str):
            step = {"text": step}
        if isinstance(step, int):
            step = {"status": step}
        time.sleep(step.get("wait", self.delay))
        status = step.get("status", 200)
        if "body" in step:
            data = step["body"]
        elif status != 200:
            data = json.dumps({"error": {"message": step.get("text", f"status {status}"), "code": None}}).encode()
        else:
            text, images = parts_of(body)
            answer = step["text"] if "text" in step else sensible(text, images)
            message = {"role": "assistant", "content": answer, "refusal": step.get("refusal")}
            choices = [{"index": 0, "message": message, "finish_reason": step.get("finish", "stop")}]
            usage = {"prompt_tokens": len(text) // 4 + 800 * len(images), "completion_tokens": len(answer or "") // 4}
            usage["total_tokens"] = sum(usage.values())
            whole = {
                "id": "x",
                "object": "chat.completion",
                "created": 0,
                "model": body["model"],
                "choices": step.get("choices", choices),
                "usage": step.get("usage", usage),
            }
            data = json.dumps(whole).encode()
        handler.send_response(status)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(data)), **step.get("headers", {})}
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)


def parts_of(body):
    """(text, images as uint8 RGB) of a request."""
    content = body["messages"][-1]["content"]
    if isinstance(content, str):
        return content, []
    text = "".join(part["text"] for part in content if part["type"] == "text")
    images = []
    for part in content:
        if part["type"] == "image_url":
            data = base64.b64decode(part["image_url"]["url"].partition(",")[2])
            images.append(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1])
    return text, images


if __name__ == "__main__":
    server = ChatServer(port=int(sys.argv[1]))
    print(server.url, flush=True)
    try:
        while True:
            time.sleep(1)
    except KeyboardInterrupt:
        print(f"{len(server.requests)} requests")
