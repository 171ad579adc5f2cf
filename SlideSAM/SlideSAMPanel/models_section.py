"""The models: what there is, where it comes from, and which one is used."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _
from SlideSAMBridge.effect import jobs
from SlideSAMBridge.setup import preferences
from SlideSAMBridge.tasks import shelf, worker

from . import widgets
from .ticker import Ticker

QUIET = 0.1  # seconds between two reports of a download
WHOLE = object()  # what a job emits at its very end
NAME_ROLE = 256  # Qt::UserRole


class ModelsSection:
    """List, download, files, and the choice of model, device, precision and cache size."""

    def __init__(self, layout: Any, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._worker = worker.Worker()  # its own: a download must not keep predictions waiting
        self._whole = False  # whether the job that was followed last did all it was to do
        form = widgets.section(layout, _("Models"), "SlideSAMModels")
        self.ticker = Ticker(form.parentWidget())
        self._add_list(form)
        self._add_buttons(form)
        self._add_choices(form)

    # Building

    def _add_list(self, form: Any) -> None:
        self.list = qt.QTreeWidget()
        self.list.objectName = "SlideSAMModelList"
        self.list.setHeaderLabels([_("Model"), _("Size"), _("Licence"), _("On this computer")])
        self.list.rootIsDecorated = False
        self.list.setMinimumHeight(9 * self.list.fontMetrics().height())
        self.list.connect("itemSelectionChanged()", self._update_buttons)
        form.addRow(self.list)

    def _add_buttons(self, form: Any) -> None:
        self.download = widgets.button(
            _("Download"),
            _("Download the selected model; an interrupted download goes on where it stopped."),
            "SlideSAMDownload",
            self._download,
        )
        self.cancel = widgets.button(
            _("Cancel"),
            _("Stop; what has arrived of a download is kept."),
            "SlideSAMCancelDownload",
            self._cancel,
        )
        self.choose = widgets.button(
            _("Choose file ..."),
            _(
                "Use a checkpoint from this computer. For a model of the list that has to be "
                "fetched by hand, its file is copied to the models' folder."
            ),
            "SlideSAMChooseFile",
            self._choose,
        )
        self.remove = widgets.button(
            _("Remove"), _("Delete the selected model's file."), "SlideSAMRemove", self._remove
        )
        self.folder = widgets.button(
            _("Open folder"),
            _("Show the folder with the downloaded models."),
            "SlideSAMOpenFolder",
            self._open_folder,
        )
        form.addRow(widgets.row([self.download, self.cancel, self.remove]))
        form.addRow(widgets.row([self.choose, self.folder]))
        self.progress = qt.QProgressBar()
        self.progress.objectName = "SlideSAMDownloadProgress"
        self.progress.setVisible(False)
        form.addRow(self.progress)
        self.message = widgets.label("SlideSAMModelMessage")
        form.addRow(self.message)

    def _add_choices(self, form: Any) -> None:
        tip = _("What Segment all uses, and the Slide-SAM effect until you choose there.")
        self.model = widgets.choice((), "SlideSAMModel", tip)
        self.device = widgets.choice(
            preferences.DEVICES,
            "SlideSAMDevice",
            _("auto: an NVIDIA graphics card where there is one, else the processor."),
        )
        self.precision = widgets.choice(
            preferences.PRECISIONS,
            "SlideSAMPrecision",
            _("auto: half precision where it is as good and quicker."),
        )
        self.cache = qt.QSpinBox()
        self.cache.objectName = "SlideSAMCache"
        self.cache.setRange(0, preferences.MOST_CACHE)
        self.cache.specialValueText = _("automatic")
        self.cache.setSingleStep(64)
        self.cache.suffix = " MiB"
        self.cache.setToolTip(_("Memory for encoded slices, shared by all segments."))
        for text, box in (
            (_("Use:"), self.model),
            (_("Device:"), self.device),
            (_("Precision:"), self.precision),
        ):
            form.addRow(text, box)
            box.connect("currentIndexChanged(int)", self._chosen)
        form.addRow(_("Cache:"), self.cache)
        self.cache.connect("valueChanged(int)", self._chosen)

    # Showing

    def refresh(self) -> None:
        """Show the models as they are on the disk now, and the choice."""
        from SlideSAMLib.models import list_models

        models = list_models()
        with widgets.silent(self.list):
            self._show_list(models, self._selected() or "builtin")
        self._show_choice([info.name for info in models if info.installed])
        self._update_buttons()

    def _show_list(self, models: Sequence[Any], selected: str) -> None:
        self.list.clear()
        for info in models:
            where = str(info.path) if info.installed else _("no")
            shown = _("comes with SlideSAM") if info.source == "builtin" else where
            size = info.path.stat().st_size if info.installed else info.size
            item = qt.QTreeWidgetItem([info.name, widgets.size_text(size), info.licence, shown])
            item.setToolTip(0, info.title)
            item.setToolTip(3, where if info.installed else info.page)
            item.setData(0, NAME_ROLE, info.name)
            self.list.addTopLevelItem(item)
            if info.name == selected:
                self.list.setCurrentItem(item)
        for column in range(3):
            self.list.resizeColumnToContents(column)

    def _show_choice(self, installed: list[str]) -> None:
        chosen = preferences.read()
        names = [*installed, *([] if chosen.model in installed else [chosen.model])]
        with widgets.silent(self.model):
            self.model.clear()
            for name in names:
                self.model.addItem(Path(name).name, name)
        widgets.select(self.model, chosen.model)
        widgets.select(self.device, chosen.device)
        widgets.select(self.precision, chosen.precision)
        with widgets.silent(self.cache):
            self.cache.value = chosen.cache_mib
        shelf.shared_shelf.resize_cache(preferences.cache_bytes())

    def _selected(self) -> str | None:
        item = self.list.currentItem()
        return None if item is None else item.data(0, NAME_ROLE)

    def _info(self) -> Any:
        from SlideSAMLib.models import model_info

        name = self._selected()
        return None if name is None else model_info(name)

    def _update_buttons(self) -> None:
        from SlideSAMLib.models import files_of

        info, busy = self._info(), self.ticker.job is not None
        self.download.setEnabled(
            not busy and info is not None and not info.installed and info.url is not None
        )
        self.remove.setEnabled(
            not busy and info is not None and info.source != "builtin" and bool(files_of(info))
        )
        self.choose.setEnabled(not busy)
        self.cancel.setEnabled(busy)
        self.progress.setVisible(busy)

    # Acting

    def _chosen(self) -> None:
        preferences.change(
            model=self.model.currentData,
            device=self.device.currentData,
            precision=self.precision.currentData,
            cache_mib=self.cache.value,
        )
        shelf.shared_shelf.resize_cache(preferences.cache_bytes())
        self._on_change()

    def _download(self) -> None:
        name = self._selected()

        def task(job: Any) -> None:
            from SlideSAMLib import models

            last = [0.0]

            def report(done: int, total: int | None) -> None:
                now = time.monotonic()
                if now - last[0] >= QUIET or done == total:
                    last[0] = now
                    job.emit((done, total))

            models.download(name, report, job.cancelled)

        self._start("download", task, _("Downloading {name} ...").format(name=name))

    def _choose(self) -> None:
        path = qt.QFileDialog.getOpenFileName(
            slicer.util.mainWindow(),
            _("Choose a model file"),
            "",
            _("Checkpoints (*.pth *.pt *.safetensors);;All files (*)"),
        )
        if isinstance(path, tuple):  # some bindings give the filter, too
            path = path[0]
        if not path:
            return
        info = self._info()
        wanted = info.name if info is not None and info.source == "file" else None

        def task(job: Any) -> None:
            from SlideSAMLib import models

            if wanted is not None and not info.installed:
                models.install(wanted, path, job.cancelled)
                job.emit(wanted)
            else:
                models.verify(path)
                job.emit(path)

        self._start("file", task, _("Reading {file} ...").format(file=Path(path).name))

    def _remove(self) -> None:
        from SlideSAMLib import models

        info = self._info()
        files = "\n".join(str(path) for path in models.files_of(info))
        question = _("Delete {file}?").format(file=files)
        if not slicer.util.confirmOkCancelDisplay(question):
            return
        try:
            freed = models.remove(info.name)
        except (ValueError, RuntimeError) as error:
            self.message.text = str(error)
            return
        if preferences.read().model == info.name:
            preferences.change(model="builtin")
        self.message.text = _("Removed {name}: {size} are free again.").format(
            name=info.name, size=widgets.size_text(freed)
        )
        self.refresh()
        self._on_change()

    def _open_folder(self) -> None:
        from SlideSAMLib.models import models_folder

        folder = models_folder()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self.message.text = _("The folder {folder} cannot be made: {reason}.").format(
                folder=folder, reason=error.strerror
            )
            return
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(folder)))

    def _cancel(self) -> None:
        """A download ends by itself; reading a file cannot be stopped, so nobody waits for it."""
        if self.ticker.job is None or self.ticker.job.kind == "download":
            self.ticker.cancel()
            return
        self.ticker.abandon()
        self.message.text = _("Cancelled.")
        self.refresh()

    def _start(self, kind: str, task: Callable[[Any], None], text: str) -> None:
        self.message.text = text
        self.progress.setRange(0, 0)
        self._whole = False

        def whole(job: Any) -> None:
            task(job)
            job.emit(WHOLE)

        self.ticker.follow(self._worker.submit(kind, whole), self._take, self._end)
        self._update_buttons()

    def _take(self, event: Any) -> None:
        if event is WHOLE:
            self._whole = True
            return
        if isinstance(event, str):  # a model that can be used now
            preferences.change(model=event)
            return
        done, total = event
        self.progress.setRange(0, 1000 if total else 0)
        if total:
            self.progress.value = int(1000 * done / total)
        self.message.text = _("{done} of {total}").format(
            done=widgets.size_text(done), total=widgets.size_text(total) or "?"
        )

    def _end(self, job: Any) -> None:
        from SlideSAMLib.errors import Cancelled

        if self._whole:
            self.message.text = _("Done.")
        elif job.error is None or isinstance(job.error, Cancelled):  # None: before it began
            self.message.text = _("Cancelled; the download goes on where it stopped next time.")
        else:
            self.message.text = jobs.sentence(job.error)
        self.refresh()
        self._on_change()

    def close(self) -> None:
        """End what is under way."""
        self.ticker.close()
        self._worker.close()
