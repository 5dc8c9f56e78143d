"""Tensors of the Open Inference Protocol: a request's become rows, answers become a response's.

An input that may be an object has one tensor for each of its fields, of shape [n] or [n, 1]; any other input is one
tensor "input". A tensor is JSON or, behind the JSON, raw bytes in the order of the tensors: numbers little-endian,
texts each behind its length in four bytes. Missing values are null, NaN or, where a value may be missing, a text of no
length; so are those that the request's parameters leave out of an answer. A list of texts is a text, as JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from learning.answer_labels import labels_in
from service.errors import ApiError, field_errors

DTYPES = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "i1", "INT16": "<i2",
    "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
_LENGTH_BYTES = 4
WHOLE = "input"  # the tensor of an input that is no object
PROTOCOL_PARAMETERS = frozenset(
    {"binary_data_output", "sequence_id", "sequence_start", "sequence_end", "priority", "timeout"}
)
REST = "json"  # the tensor of answers that are no numbers and texts: each as a JSON text


class InputTensor(BaseModel):
    """One tensor of a request."""

    name: str
    datatype: str
    shape: list[int] = Field(min_length=1, max_length=2)
    data: Any = None
    parameters: dict[str, Any] = Field(default_factory=dict)


class OutputWanted(BaseModel):
    """One tensor that the response is to have."""

    name: str
    parameters: dict[str, Any] = Field(default_factory=dict)


class InferRequest(BaseModel):
    """What to infer."""

    id: str | None = None
    inputs: list[InputTensor] = Field(min_length=1)
    outputs: list[OutputWanted] | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)

    @property
    def options(self) -> dict[str, Any]:
        """What is asked of the answers: the parameters that are not the protocol's own."""
        return {name: value for name, value in self.parameters.items() if name not in PROTOCOL_PARAMETERS}

    @property
    def timeout_s(self) -> float | None:
        """The protocol's timeout, given in microseconds; 400 when it is none."""
        given = self.parameters.get("timeout")
        if given is None:
            return None
        if isinstance(given, bool) or not isinstance(given, int) or given <= 0:
            raise _bad(f"The parameter timeout is {str(given)[:80]}, which is no number of microseconds above 0.")
        return given / 1e6


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor that a model takes or gives: `columns` are the names along its second axis, if it has one with names."""

    name: str
    datatype: str
    columns: tuple[str, ...] = ()
    is_vector: bool = False  # a second axis of numbers without names
    nullable: bool = False
    is_file: bool = False  # its bytes go to the model as they are

    def metadata(self) -> dict[str, Any]:
        """Return the tensor as a model's metadata lists it."""
        shape = [-1, len(self.columns)] if self.columns else [-1, -1] if self.is_vector else [-1]
        about: dict[str, Any] = {"name": self.name, "datatype": self.datatype, "shape": shape}
        if self.columns:
            about["parameters"] = {"columns": json.dumps(self.columns)}
        return about


def input_specs(schema: dict[str, Any]) -> list[TensorSpec]:
    """Return the tensors of inputs with this JSON Schema."""
    forms = [schema, *schema.get("anyOf", ())]
    if any("contentMediaType" in form for form in forms):
        return [TensorSpec(WHOLE, "BYTES", is_file=True)]
    row = next((form for form in forms if form.get("type") == "object"), None)
    if row is None:
        return [TensorSpec(WHOLE, "BYTES")]
    datatypes = {"number": "FP64", "integer": "INT64", "boolean": "BOOL"}
    specs = []
    for name, field in row["properties"].items():
        kinds = field["type"] if isinstance(field["type"], list) else [field["type"]]
        specs.append(TensorSpec(name, datatypes.get(kinds[0], "BYTES"), nullable="null" in kinds))
    return specs


def output_specs(schema: dict[str, Any]) -> list[TensorSpec]:
    """Return the tensors of answers with this JSON Schema; shares of one, such as probabilities, are FP32."""
    labels = labels_in(schema)
    specs = []
    for name, field in schema.get("properties", {}).items():
        if field.get("type") == "number":
            specs.append(TensorSpec(name, "FP32" if field.get("maximum") == 1 else "FP64"))
        elif field.get("type") in ("string", ["string", "null"]):
            specs.append(TensorSpec(name, "BYTES"))
        elif field.get("type") == "object" and field.get("properties"):
            specs.append(TensorSpec(name, "FP64", tuple(field["properties"])))
        elif field.get("type") == "object" and labels:
            specs.append(TensorSpec(name, "FP32", labels))
        elif field.get("type") == "array" and field.get("items", {}).get("type") == "number":
            specs.append(TensorSpec(name, "FP32", is_vector=True))
        elif field.get("type") == "array" and field.get("items", {}).get("type") == "string":
            specs.append(TensorSpec(name, "BYTES"))
    return specs or [TensorSpec(REST, "BYTES")]


def parse(body: bytes, header_length: int | None) -> tuple[InferRequest, memoryview]:
    """Return the JSON part of a request, checked, and the raw bytes behind it; 400 when it is none."""
    if header_length is not None and not 0 <= header_length <= len(body):
        raise _bad(f"Inference-Header-Content-Length is {header_length}, but the body has {len(body)} bytes.")
    head = body if header_length is None else body[:header_length]
    try:
        asked = InferRequest.model_validate_json(head)
    except ValidationError as error:
        first = field_errors([{**item, "loc": ("body", *item["loc"])} for item in error.errors()])[0]
        raise _bad(f"The request cannot be read: {first['message']}") from None
    return asked, memoryview(body)[len(head) :]


def to_inputs(asked: InferRequest, raw: memoryview, specs: Sequence[TensorSpec]) -> list[Any]:
    """Return the tensors as a model's inputs, one for each row; 400 names the tensor that does not fit."""
    known = {spec.name: spec for spec in specs}
    columns: dict[str, list[Any]] = {}
    for tensor in asked.inputs:
        if tensor.name not in known:
            raise _bad(f'Input "{tensor.name}" is none of this model\'s. Inputs: {", ".join(known)}.')
        values, raw = _values(tensor, raw, is_file=known[tensor.name].is_file)
        columns[tensor.name] = list(map(_present, values)) if known[tensor.name].nullable else values
    if len(raw):
        raise _bad(f"{len(raw)} bytes follow the last tensor.")
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise _bad(f"The tensors have different numbers of rows: {lengths}.")
    if list(known) == [WHOLE]:
        return columns[WHOLE]
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _values(tensor: InputTensor, raw: memoryview, *, is_file: bool) -> tuple[list[Any], memoryview]:
    count = math.prod(tensor.shape)
    if (len(tensor.shape) == 2 and tensor.shape[1] != 1) or min(tensor.shape) < 0:
        raise _bad(f'Input "{tensor.name}" has the shape {tensor.shape}; [n] or [n, 1] is taken.')
    if tensor.datatype != "BYTES" and tensor.datatype not in DTYPES:
        raise _bad(
            f'Input "{tensor.name}" has the datatype "{tensor.datatype}". Datatypes: BYTES, {", ".join(DTYPES)}.'
        )
    size = tensor.parameters.get("binary_data_size")
    if size is None:
        values = _flat(tensor.data)
    else:
        if not isinstance(size, int) or not 0 <= size <= len(raw):
            raise _bad(f'Input "{tensor.name}" announces {size} bytes, but {len(raw)} are left of the body.')
        values, raw = _from_bytes(tensor, raw[:size], is_file=is_file), raw[size:]
    if len(values) != count:
        raise _bad(f'Input "{tensor.name}" has the shape {tensor.shape} but {len(values)} values.')
    return values, raw


def _flat(data: Any) -> list[Any]:
    if not isinstance(data, list):
        return []
    return [value for entry in data for value in (entry if isinstance(entry, list) else [entry])]


def _from_bytes(tensor: InputTensor, raw: memoryview, *, is_file: bool) -> list[Any]:
    if tensor.datatype == "BYTES":
        return [content if is_file else _text(tensor.name, content) for content in _contents(tensor.name, raw)]
    dtype = np.dtype(DTYPES[tensor.datatype])
    if len(raw) % dtype.itemsize:
        raise _bad(f'Input "{tensor.name}" has {len(raw)} bytes, which are no whole number of {tensor.datatype}.')
    values: list[Any] = np.frombuffer(raw, dtype).tolist()
    return values


def _contents(name: str, raw: memoryview) -> Iterator[bytes]:
    at = 0
    while at < len(raw):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(raw[at:start], "little")
        if start > len(raw) or at > len(raw):
            raise _bad(f'Input "{name}": a text ends beyond the tensor.')
        yield bytes(raw[start:at])


def _text(name: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise _bad(f'Input "{name}" has a text that is not UTF-8.') from None


def _present(value: Any) -> Any:
    return None if value == "" or (isinstance(value, float) and math.isnan(value)) else value


def to_outputs(
    asked: InferRequest, answers: Sequence[dict[str, Any]], specs: Sequence[TensorSpec]
) -> tuple[list[dict[str, Any]], list[bytes]]:
    """Return the tensors that are wanted, and the raw bytes of those that are wanted so."""
    by_name = {spec.name: spec for spec in specs}
    as_bytes = bool(asked.parameters.get("binary_data_output", False))
    wanted = asked.outputs or [OutputWanted(name=spec.name) for spec in specs if _is_there(answers, spec)]
    tensors, blobs = [], []
    for one in wanted:
        spec = by_name.get(one.name)
        if spec is None:
            raise _bad(f'Output "{one.name}" is none of this model\'s. Outputs: {", ".join(by_name)}.')
        if not _is_there(answers, spec):
            raise _bad(f'Output "{one.name}" is left out by the parameters of this request.')
        if one.parameters.get("classification"):
            raise _bad("The classification extension is not served; the output probabilities has every class.")
        rows = [_of_answer(answer, spec) for answer in answers]
        tensor: dict[str, Any] = {"name": spec.name, "datatype": spec.datatype, "shape": _shape(rows, spec)}
        values = [value for row in rows for value in row]
        if one.parameters.get("binary_data", as_bytes):
            blob = _to_bytes(values, spec.datatype)
            tensor["parameters"] = {"binary_data_size": len(blob)}
            blobs.append(blob)
        else:
            tensor["data"] = values
        tensors.append(tensor)
    return tensors, blobs


def _is_there(answers: Sequence[dict[str, Any]], spec: TensorSpec) -> bool:
    """Return whether the answers have this part, which options may have taken from all of them."""
    return spec.name == REST or not answers or spec.name in answers[0]


def _shape(rows: Sequence[Sequence[Any]], spec: TensorSpec) -> list[int]:
    if spec.columns or spec.is_vector:
        return [len(rows), len(rows[0]) if rows else len(spec.columns)]
    return [len(rows)]


def _of_answer(answer: dict[str, Any], spec: TensorSpec) -> list[Any]:
    if spec.name == REST and REST not in answer:
        return [json.dumps(answer)]
    if spec.columns:
        return [answer[spec.name].get(column, math.nan) for column in spec.columns]
    value = answer[spec.name]
    if value is None:
        return [""]  # as missing values are in this protocol
    if isinstance(value, list) and not spec.is_vector:
        return [json.dumps(value, ensure_ascii=False)]  # of unequal lengths, which no tensor has
    return value if spec.is_vector else [value]


def _to_bytes(values: Sequence[Any], datatype: str) -> bytes:
    if datatype != "BYTES":
        return np.array(values, DTYPES[datatype]).tobytes()
    texts = [str(value).encode() for value in values]
    return b"".join(len(text).to_bytes(_LENGTH_BYTES, "little") + text for text in texts)


def _bad(message: str) -> ApiError:
    return ApiError(400, "invalid_request", message)
