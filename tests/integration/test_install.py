# SPDX-License-Identifier: BSD-2-Clause
"""make install: all of it, below DESTDIR, with every placeholder filled in."""

import os
import pathlib
import re
import shutil
import subprocess

import pytest

from support import process

CONFIG = dict(re.findall(r"^(\w+) = ?(.*)$", (process.BUILD / "config.mk").read_text(), re.M))


@pytest.fixture(scope="module")
def installed():
    dest = process.folder("install")
    subprocess.run([process.ROOT / "packaging" / "install", process.BUILD, dest],
                   check=True, stdout=subprocess.DEVNULL)
    yield dest
    process.drop(dest)


def below(dest, path):
    return dest / path.lstrip("/")


@pytest.mark.parametrize("path", [
    "{PREFIX}/bin/tenantd",
    "{MODULEDIR}/ngx_http_tenant_module.so",
    "{PREFIX}/share/tiergate/sql/0001_foundation.sql",
    "{PREFIX}/share/tiergate/openapi.yaml",
    "{PREFIX}/share/man/man8/tenantd.8",
    "{PREFIX}/lib/systemd/system/tiergate-tenantd.service",
    "{PREFIX}/lib/systemd/system/tiergate-gateway.service",
    "{PREFIX}/lib/systemd/system/tiergate-tenantd.provisioner.conf",
    "{PREFIX}/lib/systemd/system/tiergate-agent.service",
    "{PREFIX}/lib/sysusers.d/tiergate.conf",
    "{SYSCONFDIR}/logrotate.d/tiergate-gateways",
    "{SYSCONFDIR}/tiergate/tenantd.ini.example",
    "{SYSCONFDIR}/tiergate/gateway.conf.example",
])
def test_is_there(installed, path):
    assert below(installed, path.format(**CONFIG)).stat().st_size > 0


def test_every_migration(installed):
    sql = below(installed, f"{CONFIG['PREFIX']}/share/tiergate/sql")
    assert sorted(os.listdir(sql)) == sorted(
        p.name for p in (process.ROOT / "sql").glob("[0-9]*.sql"))


def test_every_page(installed):
    """An air-gapped site has no other copy; links between pages hold there, too."""
    doc = below(installed, f"{CONFIG['PREFIX']}/share/doc/tiergate")
    pages = sorted(p.relative_to(process.ROOT / "docs") for p in (process.ROOT / "docs").rglob("*.md"))
    assert len(pages) > 20 and sorted(p.relative_to(doc) for p in doc.rglob("*.md")) == pages
    for page in pages:
        for link in re.findall(r"\]\(([^)#: ]+)", re.sub(r"`[^`]*`", "", (doc / page).read_text())):
            assert (doc / page.parent / link).exists(), (page, link)


def test_no_placeholder_left(installed):
    texts = [p for p in pathlib.Path(installed.resolve()).rglob("*")
             if p.is_file() and p.suffix in (".service", ".conf", ".example", ".8")]
    assert texts
    for path in texts:
        assert not re.search(r"@[a-z]+@", path.read_text()), path


def test_operators_files_stay(installed):
    own = below(installed, f"{CONFIG['SYSCONFDIR']}/tiergate/tenantd.ini")
    own.write_text("mine\n")
    subprocess.run([process.ROOT / "packaging" / "install", process.BUILD, installed],
                   check=True, stdout=subprocess.DEVNULL)
    assert own.read_text() == "mine\n"


def test_example_loads_the_installed_module(installed):
    text = below(installed, f"{CONFIG['SYSCONFDIR']}/tiergate/gateway.conf.example").read_text()
    assert f"load_module {CONFIG['MODULEDIR']}/ngx_http_tenant_module.so;" in text


@pytest.mark.parametrize("unit,drop_in", [("tenantd", None), ("gateway", None), ("agent", None),
                                          ("tenantd", "provisioner")])
def test_units_are_valid(installed, tmp_path, unit, drop_in):
    """systemd reads them without a word; what they start stands elsewhere here."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze here")
    name = f"tiergate-{unit}.service"
    text = below(installed, f"{CONFIG['PREFIX']}/lib/systemd/system/{name}").read_text()
    text = re.sub(r"^(Exec\w+)=.*", r"\1=/bin/true", text, flags=re.M)
    text = re.sub(r"^Documentation=.*\n", "", text, flags=re.M)
    (tmp_path / name).write_text(text)
    if drop_in:
        content = below(installed, f"{CONFIG['PREFIX']}/lib/systemd/system/tiergate-{unit}.{drop_in}.conf").read_text()
        (tmp_path / f"{name}.d").mkdir()
        (tmp_path / f"{name}.d" / "wrong.conf").write_text(content + "NoSuchSetting=yes\n")
        assert "NoSuchSetting" in verify(tmp_path / name).stderr        # it is read
        (tmp_path / f"{name}.d" / "wrong.conf").rename(tmp_path / f"{name}.d" / f"{drop_in}.conf").write_text(content)
    done = verify(tmp_path / name)
    assert (done.returncode, done.stderr) == (0, "")


def verify(unit):
    return subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
