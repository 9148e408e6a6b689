"""AWS's own shadow client on a broker of ours, over MQTT 3.1.1 or 5, plain or mutual TLS."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Event
from typing import Any

from awscrt import io, mqtt, mqtt5, mqtt_request_response
from awsiot import ServiceStreamOptions, V2ServiceException, iotshadow

from tests.brokers import PATIENCE, Mosquitto


@dataclass
class AwsClient:
    """The operations of ``IotShadowClientV2`` on one shadow, and the events it gets.

    Attributes:
        client: AWS's client.
        thing: Name of the thing.
        shadow: Name of the shadow; empty for the classic one.
        deltas: Events of ``/delta``.
        documents: Events of ``/documents``.
    """

    client: iotshadow.IotShadowClientV2
    thing: str
    shadow: str = ""
    deltas: SimpleQueue[Any] = field(default_factory=SimpleQueue)
    documents: SimpleQueue[Any] = field(default_factory=SimpleQueue)
    _streams: list[Any] = field(default_factory=list)

    def update(self, version: int | None = None, **sections: Any) -> Any:
        """Writes sections; ``None`` removes one."""
        state = iotshadow.ShadowState(
            desired_is_nullable="desired" in sections,
            reported_is_nullable="reported" in sections,
            **sections,
        )
        call = self.client.update_named_shadow if self.shadow else self.client.update_shadow
        kind = iotshadow.UpdateNamedShadowRequest if self.shadow else iotshadow.UpdateShadowRequest
        return self._call(call, kind, state=state, version=version)

    def get(self) -> Any:
        """The document."""
        if self.shadow:
            return self._call(self.client.get_named_shadow, iotshadow.GetNamedShadowRequest)
        return self._call(self.client.get_shadow, iotshadow.GetShadowRequest)

    def delete(self) -> Any:
        """Deletes the shadow."""
        if self.shadow:
            return self._call(self.client.delete_named_shadow, iotshadow.DeleteNamedShadowRequest)
        return self._call(self.client.delete_shadow, iotshadow.DeleteShadowRequest)

    def listen(self) -> None:
        """Subscribes to deltas and documents, and waits for it."""
        named = "named_" if self.shadow else ""
        prefix = "Named" if self.shadow else ""
        for what, request, queue in (
            ("delta_updated", f"{prefix}ShadowDeltaUpdatedSubscriptionRequest", self.deltas),
            ("updated", f"{prefix}ShadowUpdatedSubscriptionRequest", self.documents),
        ):
            ready = Event()
            options = ServiceStreamOptions(
                incoming_event_listener=queue.put,
                subscription_status_listener=lambda _, ready=ready: ready.set(),
            )
            create = getattr(self.client, f"create_{named}shadow_{what}_stream")
            stream = create(getattr(iotshadow, request)(**self._names()), options)
            stream.open()
            assert ready.wait(PATIENCE)
            self._streams.append(stream)

    def _call(self, call: Callable[[Any], Future[Any]], kind: Any, **fields: Any) -> Any:
        return call(kind(**self._names(), **fields)).result(PATIENCE)

    def _names(self) -> dict[str, str]:
        names = {"thing_name": self.thing}
        return names | {"shadow_name": self.shadow} if self.shadow else names


def refusal(call: Callable[[], Any]) -> tuple[int, str]:
    """Code and message of a request that the service must refuse."""
    try:
        call()
    except V2ServiceException as error:
        assert error.modeled_error, error.inner_error
        return error.modeled_error.code, error.modeled_error.message
    raise AssertionError("the request was accepted")


@contextmanager
def connected(broker: Mosquitto, version: int) -> Iterator[iotshadow.IotShadowClientV2]:
    """AWS's client on a broker, with the client certificate where the broker asks for one."""
    tls = None
    if broker.certificates:
        certificate, key = broker.certificates.client("aws")
        options = io.TlsContextOptions.create_client_with_mtls_from_path(str(certificate), str(key))
        options.override_default_trust_store_from_path(None, str(broker.certificates.ca))
        tls = io.ClientTlsContext(options)
    limits = mqtt_request_response.ClientOptions(
        max_request_response_subscriptions=4,
        max_streaming_subscriptions=4,
        operation_timeout_in_seconds=int(PATIENCE),
    )
    connect = _mqtt5 if version == 5 else _mqtt311
    with connect(broker, tls) as protocol:
        yield iotshadow.IotShadowClientV2(protocol, limits)


@contextmanager
def _mqtt5(broker: Mosquitto, tls: io.ClientTlsContext | None) -> Iterator[mqtt5.Client]:
    up: Future[None] = Future()
    down: Future[None] = Future()
    client = mqtt5.Client(
        mqtt5.ClientOptions(
            host_name="127.0.0.1",
            port=broker.port,
            tls_ctx=tls,
            on_lifecycle_event_connection_success_fn=lambda _: up.set_result(None),
            on_lifecycle_event_stopped_fn=lambda _: down.set_result(None),
        )
    )
    client.start()
    up.result(PATIENCE)
    yield client
    client.stop()
    down.result(PATIENCE)


@contextmanager
def _mqtt311(broker: Mosquitto, tls: io.ClientTlsContext | None) -> Iterator[mqtt.Connection]:
    connection = mqtt.Connection(
        client=mqtt.Client(tls_ctx=tls),
        host_name="127.0.0.1",
        port=broker.port,
        client_id=uuid.uuid4().hex,
    )
    connection.connect().result(PATIENCE)
    yield connection
    connection.disconnect().result(PATIENCE)
