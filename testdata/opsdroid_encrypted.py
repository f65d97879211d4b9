"""Makes opsdroid_encrypted.json: python3 opsdroid_encrypted.py http://127.0.0.1:8008 > opsdroid_encrypted.json

opsdroid's own database module writes into an encrypted room, through matrix-nio and libolm. Around it is as little of
opsdroid as it needs. The homeserver must let anybody register.
"""

import asyncio
import importlib.metadata
import json
import logging
import secrets
import sys
import tempfile

import nio
from opsdroid.connector.matrix.events import MatrixStateEvent
from opsdroid.database.matrix import DatabaseMatrix

COMMON = {
    "text": 'é "quoted" \\ <&> \u2028 😀',
    "float": 1.5,
    "large": 123456789012345678901234567890,
    "null": None,
    "nested": {"a\\b": [1e300, {"x": None}], "": True},
    "key with spaces/and slash": ["x"],
    'quote"d': {"q": 0.5},
    "line\nbreak": "below",
    "é😀": -0.25,
    "reference": {"encrypted_val": "$nothing"},
    "m.mentions": 7,
}
LAYOUTS = [  # with opsdroid's setting
    {"name": "single_state_key: True", "single_state_key": True, "state_key": "", "memory": COMMON},
    {"name": "single_state_key: a string", "single_state_key": "bot.memory", "state_key": "bot.memory", "memory": {"count": 2.5, "": "the empty key"}},
    {"name": "single_state_key: False", "single_state_key": False, "memory": COMMON},
]


class Opsdroid:
    """The core and its Matrix connector, as far as the database calls them."""

    _allow_encryption = True

    def __init__(self, client):
        self.connection = client

    def get_connector(self, _):
        return self

    def lookup_target(self, room):
        return room

    async def send(self, event):
        if isinstance(event, MatrixStateEvent):
            answer = self.connection.room_put_state(event.target, event.event_type, event.content, event.state_key)
        else:
            answer = self.connection.room_send(event.target, event.event_type, event.content, ignore_unverified_devices=True)
        return checked(await answer)


def checked(answer):
    if isinstance(answer, nio.ErrorResponse):
        raise RuntimeError(answer)
    return answer


async def record(client, layout):
    """Lets opsdroid write in a room of its own, and adds to layout what the homeserver then has."""
    encryption = {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}
    room = checked(await client.room_create(initial_state=[encryption])).room_id
    checked(await client.sync(full_state=True))
    setting = layout.pop("single_state_key")
    database = DatabaseMatrix({"default_room": room, "single_state_key": setting}, Opsdroid(client))
    await database.put("gone", "soon")
    for key, value in layout["memory"].items():
        await database.put(key, "before")
        await database.put(key, value)
    await database.delete("gone")

    everything = checked(await client.room_get_state(room)).events
    layout["room"] = room
    layout["state"] = [event for event in everything if event["type"] == "dev.opsdroid.database"]
    layout["events"] = []
    for event in layout["state"]:
        for stored in event["content"].values():
            method, path = nio.Api.room_get_event(client.access_token, room, stored["encrypted_val"])
            layout["events"].append(await (await client.send(method, path)).json())


async def main(url):
    config = nio.AsyncClientConfig(encryption_enabled=True, store_name="opsdroid.db")
    client = nio.AsyncClient(url, "opsdroid-" + secrets.token_hex(4), "OPSDROID", store_path=tempfile.mkdtemp(), config=config)
    checked(await client.register(client.user, secrets.token_hex(8)))
    checked(await client.keys_upload())
    for layout in LAYOUTS:
        await record(client, layout)
    exported = tempfile.mktemp()
    await client.export_keys(exported, "passphrase", 1000)
    with open(exported) as file:
        keys = file.read()
    await client.close()

    def text(value):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

    def lines(fields):  # one value a line
        parts = []
        for name, value in fields.items():
            value = "[\n" + ",\n".join(map(text, value)) + "\n]" if isinstance(value, list) else text(value)
            parts.append(text(name) + ":" + value)
        return "{" + ",\n".join(parts) + "}"

    versions = ", ".join(name + " " + importlib.metadata.version(name) for name in ("matrix-nio", "python-olm"))
    print('{"by":' + text(versions) + ',\n"keys":' + text(keys) + ',\n"layouts":[\n' + ",\n".join(map(lines, LAYOUTS)) + "\n]}")


logging.disable(logging.CRITICAL)
asyncio.run(main(sys.argv[1]))
