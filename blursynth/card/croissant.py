"""croissant.json: the data set in MLCommons Croissant 1.1 with the RAI fields, for hubs, search engines and conferences.

Specification: https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html and its RAI vocabulary. All of it follows
from what stands in dataset.json: no times, hosts or paths, so that equal data has an equal file.
"""

from __future__ import annotations

from typing import Any

from blursynth import __version__
from blursynth.recipe import Recipe
from blursynth.shards.table import COLUMNS, NUMBERS
from blursynth.shards.table import NAME as TABLE

HOME = "https://pypi.org/project/blursynth/"
UNKNOWN_LICENCE = "the licence of the source films, which their owner knows"
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The context that Croissant 1.1 prescribes, word for word."""


def croissant(recipe: Recipe, index: dict[str, Any]) -> dict[str, Any]:
    """croissant.json as a JSON-LD object, out of the recipe and what stands in dataset.json."""
    provenance = index["provenance"].values()
    licences = sorted({str(d["licence"]) for d in provenance if d.get("licence")})
    works = sorted({str(d["citation"]) for d in provenance if d.get("citation")} | {recipe.cite} - {""})
    shards = [s for split in index["splits"].values() for s in split["shards"]]
    tars = [{"@id": s["file"]} for s in shards]
    members = {
        f"blur.{recipe.format}": ("blur", "the blurred picture: the network's input", "sc:ImageObject"),
        f"sharp.{recipe.format}": (
            "sharp",
            f"the sharp picture: {sharp_side(recipe)}",
            "sc:ImageObject",
        ),
        "json": ("facts", "how the pair was made: frames, exposure, camera, motion", "sc:Text"),
    }
    if recipe.store == "linear16":
        what = "the blur in linear light, 16 bits, without noise"
        members["linear.png"] = ("linear", what, "sc:ImageObject")
    if "mask" in recipe.labels:
        members["mask.png"] = (
            "mask",
            "255 where content moves more than 1 px over the exposure",
            "sc:ImageObject",
        )
    files = [_files(end, name, tars) for end, (name, _, _) in members.items()]
    if "flow" in recipe.labels:  # NumPy's format is none that Croissant reads: files without records
        files.append(_files("flow.npy", "flow", tars))
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": f"{recipe.name}-{index['plan_sha256'][:8]}",
        "description": f"Pairs of a blurred and a sharp picture, made from {'photos' if recipe.stills else 'film'} by "
        f"blursynth {__version__} with the recipe {recipe.name!r}. {blur_side(recipe)}",
        "conformsTo": ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"],
        "license": licences or UNKNOWN_LICENCE,
        "url": HOME,
        "version": "1.0.0",
        "creator": {"@type": "sc:Organization", "name": "whoever ran blursynth make"},
        "citeAs": "; ".join(works) or f"made with blursynth {__version__}",
        "keywords": ["deblurring", "motion blur", "image restoration", "WebDataset"],
        "distribution": [
            *(_tar(s) for s in shards),
            *files,
            _table(index["table"]),
        ],
        "recordSet": [*(_records(*facts) for facts in members.values()), _table_records()],
        **responsible(recipe, index),
    }


def sharp_side(recipe: Recipe) -> str:
    return "the photo without the shake" if recipe.stills else "the centre frame of the exposure"


def blur_side(recipe: Recipe) -> str:
    """What the blur is, in a sentence."""
    if recipe.stills:
        return "The blur is the light of a sharp photo along the path of a camera that shakes."
    if recipe.interp == "none":
        return "The blur is the mean of the frames."
    return "The blur is the light between the frames, integrated along its motion."


def _tar(shard: dict[str, Any]) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": shard["file"],
        "name": shard["file"],
        "contentUrl": shard["file"],
        "contentSize": f"{shard['bytes']} B",
        "encodingFormat": "application/x-tar",
        "sha256": shard["sha256"],
    }


def _table(table: dict[str, Any]) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": table["file"],
        "name": table["file"],
        "contentUrl": table["file"],
        "contentSize": f"{table['bytes']} B",
        "encodingFormat": "text/csv",
        "sha256": table["sha256"],
    }


def _table_records() -> dict[str, Any]:
    """The columns of samples.csv."""
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"samples/{name}",
            "name": name,
            "description": what,
            "dataType": "sc:Float" if name in NUMBERS else "sc:Text",
            "source": {"fileObject": {"@id": TABLE}, "extract": {"column": name}},
        }
        for name, (_, what) in COLUMNS.items()
    ]
    return {
        "@type": "cr:RecordSet",
        "@id": "samples",
        "name": "samples",
        "description": "a row for each sample: where it comes from and how it was made",
        "key": {"@id": "samples/key"},
        "field": fields,
    }


def _files(end: str, name: str, tars: list[dict[str, str]]) -> dict[str, Any]:
    ext = end.rpartition(".")[2]
    kind = {"json": "application/json", "npy": "application/octet-stream"}.get(ext, f"image/{ext}")
    files = {"@type": "cr:FileSet", "@id": f"{name}-files", "name": f"{name}-files"}
    return files | {"containedIn": tars, "encodingFormat": kind, "includes": f"*.{end}"}


def _records(name: str, what: str, kind: str) -> dict[str, Any]:
    """The members of one kind; those of one sample find each other by the key that their names begin with."""

    def field(of: str, data_type: str, source: dict[str, Any]) -> dict[str, Any]:
        files = {"fileSet": {"@id": f"{name}-files"}}
        return {
            "@type": "cr:Field",
            "@id": f"{name}/{of}",
            "name": of,
            "dataType": data_type,
            "source": files | source,
        }

    pattern = {"regex": "^([A-Za-z0-9_-]+)"}  # up to the first dot
    key = field("key", "sc:Text", {"extract": {"fileProperty": "filename"}, "transform": pattern})
    content = field("content", kind, {"extract": {"fileProperty": "content"}})
    records = {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": what,
        "key": {"@id": f"{name}/key"},
    }
    return records | {"field": [key, content]}


def responsible(recipe: Recipe, index: dict[str, Any]) -> dict[str, Any]:
    """The RAI fields: a datasheet's questions (Gebru et al. 2021), answered from the run."""
    samples = {name: s["samples"] for name, s in index["splits"].items()}
    rejected = ", ".join(f"{n} for {why}" for why, n in index["rejected"].items()) or "none"
    unused = ", ".join(sorted({u["reason"] for u in index["not_used"]})) or "none"
    clips, what, films = len(index["sources"]), "clips", "films"
    path = [f"interpolation between frames: {recipe.interp}"]
    if recipe.stills:
        what, films, path = "photos", "photos", [f"layers that move over a photo: {recipe.layers}"]
    if recipe.shake is not None or recipe.stills:
        length = f"{recipe.shake} px" if recipe.shake is not None else "as long as the blur asks for"
        path.append(f"camera shake: {length}")
    if recipe.blur_px is not None:
        path.append(f"length of the blur: {recipe.blur_px} px")
    return {
        "rai:dataCollection": f"No new recording: {clips} source {what}; {sum(samples.values())} pairs "
        f"({', '.join(f'{n} {name}' for name, n in samples.items())}).",
        "rai:dataCollectionType": ["Secondary Data Analysis", "Software Collection"],
        "rai:dataCollectionRawData": f"The {films} are named with their sha256 in dataset.json; they are not part of this set.",
        "rai:dataCollectionMissingData": f"Windows left out: {rejected}. Sources left out: {unused}.",
        "rai:dataPreprocessingProtocol": [
            *path,
            f"camera response: {recipe.crf}",
            f"noise: {recipe.noise}",
            f"highlights: {recipe.highlights}",
            f"JPEG: {recipe.jpeg}",
            f"gate: {recipe.gate}",
        ],
        "rai:dataUseCases": "Training and testing networks that remove motion blur. Not for the recognition of people.",
        "rai:dataBiases": "The scenes, faces and places are those of the sources, and so are the motions of film, in their proportions.",
        "rai:dataLimitations": "The blur is synthetic: motion faster than the optical flow follows, focus blur and lens "
        "faults are not in it.",
        "rai:dataSocialImpact": "Sharper pictures show more: also what people did not mean to show.",
        "rai:personalSensitiveInformation": "People and number plates in the sources can be seen. Nothing is anonymised.",
        "rai:dataAnnotationProtocol": "No human labels: each pair's facts are computed.",
        "rai:dataReleaseMaintenancePlan": "The same recipe, sources and version make the same bytes again (recipe.toml).",
    }
