"""The page about a run: all that is known of it, nothing from elsewhere, and whole or not at all."""

import base64
import html.parser
import io
import json
import pathlib

import pytest
from PIL import Image

from hebbjax.cli import plot, run_folder, show
from hebbjax.plots import Figure
from hebbjax.support import files

HOSTILE = '<script>alert(1)</script><img src="https://example.org/x.png" onerror=alert(2)>&amp;"\'{{ 7 * 7 }}'
VOID = {'meta', 'img'}


class Page(html.parser.HTMLParser):
    """A page as a browser sees it: its tags, its text, and what it asks for from elsewhere."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.open, self.words, self.pictures, self.elsewhere = [], [], [], [], []
        text = pathlib.Path(path).read_text(encoding='utf-8')
        self.feed(text)
        self.close()
        assert not self.open, 'a tag stays open'
        assert 'url(' not in text and '@import' not in text
        self.text = ' '.join(' '.join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.open += [tag] if tag not in VOID else []
        for name, value in attributes:
            assert not name.startswith('on')
            if name == 'src' and value.startswith('data:image/png;base64,'):
                self.pictures.append(base64.b64decode(value.partition(',')[2], validate=True))
            elif name in ('src', 'href', 'srcset', 'action'):
                self.elsewhere.append(value)
        if tag == 'img':
            assert dict(attributes)['alt']

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += [data] if self.open[-1:] != ['style'] else []


@pytest.fixture
def quick(monkeypatch):
    """Pictures take their time: empty ones."""
    for drawing in ('receptive_field_grid', 'metric_curves', 'confusion_plot', 'accuracy_curves'):
        monkeypatch.setattr(plot.plots, drawing, lambda *args, **how: Figure(figsize=(1, 1)))
    for drawing in ('weight_histograms', 'activation_curves', 'convergence_plot', 'win_share_plot'):
        monkeypatch.setattr(plot.plots, drawing, lambda *args, **how: Figure(figsize=(1, 1)))


def change_json(path, change):
    content = files.read_json(path)
    change(content)
    path.write_text(json.dumps(content))


def test_a_page_holds_all_that_is_known_of_a_run_and_asks_nobody(folder, call):
    code, printed, said = call('show', folder)
    path = folder / 'report.html'
    assert (code, said) == (0, '') and printed.split() == [str(path), path.as_uri()]
    assert path.stat().st_size < 3e6
    page = Page(path)
    assert page.elsewhere == [] and 'script' not in page.tags and 'link' not in page.tags
    assert page.text.startswith('cnn on digits: epoch 3 cnn on digits 6 neurons, 3 epochs of 250 images, 8 x 8 x 1;')
    for row in files.read_json(folder / 'evaluation.json')['rows']:
        assert f'{row["row"]} {row["test_accuracy"][0]:.2f} {row["train_accuracy"][0]:.2f} ' in page.text
    last = files.read_lines(folder / 'metrics.jsonl')[-1]
    digest = files.read_json(folder / 'config.json')['data']['digest']
    update, reached = last['layer1.max_update'], last['validation_accuracy']
    for word in (f'max_update {update:.4g}', f'validation_accuracy {reached:.4g}', 'features 6', 'validation 0.166667',
                 'callbacks evaluate log plot checkpoint', 'jax 0.', 'device cpu', '[8, 8, 1]', digest):  # fmt: skip
        assert word in page.text, word
    # fields, confusions of two rows, weights, activations, convergence, wins, classifiers, and a curve of each metric
    assert len(page.pictures) == 1 + 2 + 5 + len(last.keys() - {'epoch', 'stage'})
    sizes = [Image.open(io.BytesIO(picture)).size for picture in page.pictures]
    assert min(min(size) for size in sizes) > 200


def test_several_seeds_are_a_mean_and_a_deviation(folder, quick, call):
    change_json(folder / 'evaluation.json', lambda it: it['rows'][1].update(test_accuracy=[80.0, 90.0]))
    assert call('show', folder)[0] == 0
    assert 'hebbian 85.00 ± 7.07' in Page(folder / 'report.html').text


def test_what_is_missing_is_said_with_its_command(folder, tmp_path, quick, call):
    out = tmp_path / 'page.html'

    def text(*flags):
        assert call('show', folder, '--out', out, *flags)[0] == 0
        return Page(out).text

    assert f'hebbjax evaluate {folder} --epoch 1' in text('--epoch', '1')
    assert 'confusions are those of epoch 3, all else of epoch 1.' in text('--epoch', '1')
    (folder / 'evaluation.json').unlink()
    (folder / 'details.jsonl').unlink()
    (folder / 'versions.json').unlink()
    page = text()
    assert 'No classifier has judged this run yet' in page and f'hebbjax evaluate {folder}' in page
    assert 'Confusion' not in page
    change_json(folder / 'config.json', lambda it: it['settings'].update(epochs=7))
    assert f'4 of 7 epochs were not trained. hebbjax train --resume {folder}' in text()


def test_names_are_text_whatever_they_hold(folder, quick, call):
    change_json(folder / 'evaluation.json', lambda it: it['rows'].append(it['rows'][0] | {'row': HOSTILE}))
    change_json(folder / 'versions.json', lambda it: it['versions'].update({HOSTILE: HOSTILE, 'half': '\udcff'}))
    place = folder.rename(folder.parent / '<b>"run\' $(x)&amp; {{ 7 }}')
    code, printed, _ = call('show', place)
    assert code == 0 and printed.split()[-1] == (place / 'report.html').as_uri()
    page = Page(place / 'report.html')
    assert page.elsewhere == [] and not {'script', 'b'} & {*page.tags}
    assert page.text.count(HOSTILE) == 3 + ('test accuracy' in page.text) and '{{ 7 }}' in page.text


WAYS = 'delete it, and the rest is ', 'train anew in another folder'


def test_damage_is_one_sentence_and_leaves_the_page_that_was_there(folder, quick, refuse):
    (folder / 'report.html').write_text('before')
    for name in ('config.json', 'versions.json', 'evaluation.json', 'details.jsonl'):
        whole = (folder / name).read_bytes()
        for text in ('7\n', 'null\n', '{"rows": [1], "versions": 3}\n', '[' * 100_000 + '\n'):
            (folder / name).write_text(text)
            said = refuse('show', folder)
            assert f'{name} is damaged' in said and said.split('; ')[-1].startswith(WAYS), (name, text[:30], said)
        (folder / name).write_bytes(whole)
    for accuracy in (3, ['x'], None, {'a': 1}):
        row = {'row': 'other', 'test_accuracy': accuracy, 'seconds': 1, 'compile_seconds': 1}
        change_json(folder / 'evaluation.json', lambda it, row=row: it['rows'].append(row))
        assert 'evaluation.json is damaged' in refuse('show', folder)
    assert (folder / 'report.html').read_text() == 'before'


def test_a_page_is_written_whole_where_it_may_be_or_not_at_all(folder, tmp_path, monkeypatch, quick, call, refuse):
    assert 'is no run folder' in refuse('show', tmp_path / 'nowhere')
    assert 'no checkpoint of epoch 77' in refuse('show', folder, '--epoch', '77')
    assert 'name a file' in refuse('show', folder, '--out', tmp_path)
    assert 'is no folder' in refuse('show', folder, '--out', tmp_path / 'a' / 'b.html')
    assert not (folder / 'report.html').exists()
    with monkeypatch.context() as patched:
        patched.setattr(files.os, 'access', lambda path, mode: folder not in (path, *path.parents))  # as root may
        before = {path: path.stat().st_mtime_ns for path in folder.rglob('*')}
        assert 'it is read-only, or its folder is; name another file' in refuse('show', folder)
        assert call('show', folder, '--out', tmp_path / 'page.html')[0] == 0
        assert {path: path.stat().st_mtime_ns for path in folder.rglob('*')} == before

    def full(file, descriptor=None):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(files.os, 'fsync', full)
    assert 'No space left on device' in refuse('show', folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob('*')} == before, 'no draft stays either'


def test_an_evaluation_beside_the_page_goes_before_the_run_s(folder, tmp_path, quick, call):
    (out := tmp_path / 'out').mkdir()
    (folder / run_folder.EVALUATION).rename(out / run_folder.EVALUATION)
    change_json(out / run_folder.EVALUATION, lambda it: it['config'].update(dataset='a <b>.npz'))
    assert call('show', folder, '--out', out / 'page.html')[0] == 0
    assert 'test accuracy on a <b>.npz: untrained' in Page(out / 'page.html').text
    assert show.REPORT not in {path.name for path in folder.iterdir()}
