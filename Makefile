# SPDX-License-Identifier: BSD-2-Clause
#
# Wildcards find the sources: a new file needs no line here.
#
#   lib/*.c            → libtg.a         pure decisions
#   bpf/*.bpf.c        → bpf/tg_mesh.skel.h, the programs of the mesh as a header
#   tenantd/*.c        → libtd.a, bin/tenantd
#   modules/*.c        → modules/ngx_http_tenant_module.so, by nginx's own build
#   tests/unit/*.c     → tests/test_*
#   tests/fuzz/*.c     → tests/replay_*, and with libFuzzer fuzz/tests/fuzz_*

BUILD ?= build
JOBS  ?= 2
MAKEFLAGS += --no-print-directory

# Goals that must work before anything is configured, or that configure first.
FRONT = help deps check check-sanitize demo bench fuzz jitter lint format clean
GOALS = $(or $(MAKECMDGOALS),help)

.PHONY: help all build tests $(FRONT) check-unit check-sql check-fuzz \
        check-bpf mesh-tools check-integration check-tree fuzz-targets install FORCE
.DELETE_ON_ERROR:
.SECONDARY:
.SUFFIXES:

help:
	@echo 'make demo               onboard tenants and watch them being served, limited, promoted, meshed'
	@echo 'make check              install what is missing, build, run every test suite'
	@echo
	@echo 'make build              the daemon, the library and the nginx module'
	@echo 'make check-SUITE        one of: tree unit sql fuzz integration bpf'
	@echo 'make check-sanitize     unit tests and fuzz corpora under ASan and UBSan'
	@echo 'make bench              measure against plain nginx and HAProxy, side by side'
	@echo 'make jitter             integration and bpf with random delays between processes,'
	@echo '                        JITTER=30,60: 3 % of the calls, 60 ms at most'
	@echo 'make fuzz               search with libFuzzer, FUZZ_TIME=60 seconds a target'
	@echo 'make lint, make format  analysers; clang-format'
	@echo 'make install            below PREFIX of configure, and DESTDIR'
	@echo 'make deps               install the packages of every group (DEPS=build,run,...)'
	@echo 'make clean              remove $(BUILD)/'
	@echo
	@echo 'BUILD=dir builds elsewhere, JOBS=n sets the parallel compilations (2).'
	@echo './configure --help lists what can be chosen; without it the defaults are taken.'


ifneq ($(filter-out $(FRONT),$(GOALS)),)

include $(BUILD)/config.mk

$(BUILD)/config.mk: configure auto/options auto/deps auto/check auto/system auto/output
	@if [ -f $@ ]; then $(or $(RECONFIGURE),./configure --builddir=$(BUILD)); \
	else ./configure --builddir=$(BUILD); fi

endif


# Compilation.

COMPILE = $(CC) $(STD) $(WARN) $(CFLAGS) $(SAN) -I$(BUILD) -Ilib -Itenantd -Ibpf -I$(BUILD)/bpf $(INCLUDES)
LINK    = $(CC) $(STD) $(CFLAGS) $(SAN) $(LDFLAGS) $(if $(LTO),-fno-lto)

objects = $(patsubst %.c,$(BUILD)/%.o,$(1))

LIBTG = $(BUILD)/lib/libtg.a
LIBTD = $(BUILD)/tenantd/libtd.a
LIBTG_OBJS := $(call objects,$(wildcard lib/*.c))
NO_MESH    := $(if $(filter yes,$(MESH)),,$(wildcard tenantd/td_mesh*.c tenantd/td_agent*.c))
LIBTD_OBJS := $(call objects,$(filter-out tenantd/main.c $(NO_MESH),$(wildcard tenantd/*.c)))
TENANTD    := $(patsubst tenantd/main.c,$(BUILD)/bin/tenantd,$(wildcard tenantd/main.c))
MODULE     := $(if $(wildcard modules/*.c),$(BUILD)/modules/ngx_http_tenant_module.so)
LIBS = $(LIBTD) $(LIBTG) $(LIBTD_LIBS) $(LIBTG_LIBS)

all build: $(LIBTG) $(LIBTD) $(TENANTD) $(MODULE)

# $(BUILD)/flags is newer than an object only if the flags have changed.
$(BUILD)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	@echo '  CC      $<'
	@$(COMPILE) -MMD -MP -c -o $@ $<

# The module is linked from these and its own, and optimised as a whole.  They are
# code as well: daemon and tests are linked as quickly as before.
$(LIBTG_OBJS): private CFLAGS += $(LTO)

$(BUILD)/flags $(BUILD)/config.h: $(BUILD)/config.mk ;

# Removed first: an object whose source is gone must not stay in the archive.
$(LIBTG) $(LIBTD):
	@mkdir -p $(@D)
	@rm -f $@
	@echo '  AR      $@'
	@ar rcs $@ $(filter %.o,$^)

$(LIBTG): $(LIBTG_OBJS) $(BUILD)/sources
$(LIBTD): $(LIBTD_OBJS) $(BUILD)/sources

$(BUILD)/bin/tenantd: $(BUILD)/tenantd/main.o $(LIBTD) $(LIBTG)
	@mkdir -p $(@D)
	@echo '  LD      $@'
	@$(LINK) -o $@ $< $(LIBS)

# The programs of the mesh: each file by itself, linked into one object, and that
# as a header.  Only bpf/tg_*.h and UAPI headers are seen.

BPF_OBJS := $(patsubst %.c,$(BUILD)/%.o,$(wildcard bpf/*.bpf.c))
SKELETON  = $(BUILD)/bpf/tg_mesh.skel.h

$(BUILD)/bpf/%.bpf.o: bpf/%.bpf.c $(BUILD)/flags
	@mkdir -p $(@D)
	@echo '  BPF     $<'
	@$(CLANG) $(BPF_CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/bpf/tg_mesh.o: $(BPF_OBJS)
	@$(BPFTOOL) gen object $@ $^

$(SKELETON): $(BUILD)/bpf/tg_mesh.o
	@echo '  SKEL    $@'
	@$(BPFTOOL) gen skeleton $< name tg_mesh > $@

$(BUILD)/tenantd/td_mesh.o $(BUILD)/tenantd/td_mesh_service.o \
$(BUILD)/tenantd/td_mesh_link.o $(BUILD)/tenantd/td_mesh_fill.o: $(SKELETON)


# The names of all sources, rewritten when one comes or goes.
$(BUILD)/sources: FORCE
	@ls lib/*.c tenantd/*.c 2>/dev/null > $@.new || :
	@cmp -s $@.new $@ || cp $@.new $@
	@rm -f $@.new


# The nginx module.  nginx is configured anew only when the list of its files
# changes; see auto/nginx.

NGINX_TREE = $(BUILD)/nginx
MODULE_FILES = $(wildcard modules/*.c modules/*.h lib/*.h)

$(BUILD)/modules/ngx_http_tenant_module.so: $(NGINX_TREE).configured $(MODULE_FILES) $(LIBTG)
	@echo '  NGINX   $@'
	@MAKE='$(MAKE)' auto/nginx build $(BUILD)

$(NGINX_TREE).configured: auto/nginx modules/config $(NGINX_TREE).files $(BUILD)/flags
	@echo '  NGINX   configure'
	@auto/nginx configure $(BUILD)
	@touch $@

$(NGINX_TREE).files: FORCE | $(BUILD)/config.mk
	@{ printf '%s\n' $(MODULE_FILES); grep '^\(NGINX\|LIBTG_LIBS\)' $(BUILD)/config.mk; } > $@.new
	@cmp -s $@.new $@ || cp $@.new $@
	@rm -f $@.new


# Tests.  Each suite is a goal; tests/tools/check runs them all and sums up.

UNIT   := $(patsubst %.c,$(BUILD)/tests/%,$(notdir $(filter-out \
            $(if $(filter yes,$(MESH)),,tests/unit/test_td_mesh% tests/unit/test_td_agent%),$(wildcard tests/unit/test_*.c))))
FUZZED := $(notdir $(filter-out $(if $(filter yes,$(MESH)),,tests/fuzz/fuzz_td_agent%), \
            $(wildcard tests/fuzz/fuzz_*.c)))
REPLAY := $(patsubst fuzz_%.c,$(BUILD)/tests/replay_%,$(FUZZED))
FUZZ   := $(patsubst %.c,$(BUILD)/tests/%,$(FUZZED))
UNIT_SHARED := $(call objects,$(filter-out tests/unit/test_%,$(wildcard tests/unit/*.c)))

MESHCTL := $(if $(filter yes,$(MESH)),$(BUILD)/tests/meshctl)

TEST_ENV = TIERGATE_BUILD=$(abspath $(BUILD)) PG_BINDIR=$(PG_BINDIR)
TEST_JITTER = $(if $(JITTER),LD_PRELOAD=$(abspath $(BUILD))/tests/jitter.so JITTER=$(JITTER))
TEST_NGINX = $(if $(filter yes,$(SANITIZERS)),$(abspath $(BUILD))/bin/nginx,$(NGINX))

tests: $(UNIT) $(REPLAY) $(MESHCTL) ;

$(BUILD)/tests/test_%: $(BUILD)/tests/unit/test_%.o $(UNIT_SHARED) $(LIBTD) $(LIBTG)
	@echo '  LD      $@'
	@$(LINK) -o $@ $< $(UNIT_SHARED) $(LIBS) $(CMOCKA_LIBS)

$(BUILD)/tests/replay_%: $(BUILD)/tests/fuzz/fuzz_%.o $(BUILD)/tests/fuzz/replay.o $(LIBTD) $(LIBTG)
	@echo '  LD      $@'
	@$(LINK) -o $@ $(filter %.o,$^) $(LIBS)

$(BUILD)/tests/fuzz_%: $(BUILD)/tests/fuzz/fuzz_%.o $(LIBTD) $(LIBTG)
	@echo '  LD      $@'
	@$(LINK) -fsanitize=fuzzer -o $@ $< $(LIBS)

$(BUILD)/tests/meshctl: $(BUILD)/tests/bpf/meshctl.o $(LIBTD) $(LIBTG)
	@echo '  LD      $@'
	@$(LINK) -o $@ $< $(LIBS)

check-unit: $(UNIT)
	@$(TEST_ENV) tests/tools/run-unit $(UNIT)

check-fuzz: $(REPLAY)
	@tests/tools/run-replay $(REPLAY)

check-sql: build
	@$(TEST_ENV) tests/tools/run-sql $(BUILD)

check-integration: build $(if $(JITTER),$(BUILD)/tests/jitter.so)
	@$(TEST_ENV) TIERGATE_NGINX=$(TEST_NGINX) $(TEST_JITTER) \
	    $(PYTHON) -B -m pytest -p no:cacheprovider -q tests/integration $(PYTEST_ARGS)

mesh-tools: $(MESHCTL) ;

$(BUILD)/tests/jitter.so: tests/tools/jitter.c
	@mkdir -p $(@D)
	@echo '  LD      $@'
	@$(CC) $(WARN) -std=gnu11 -O2 -shared -fPIC -o $@ $< -ldl

check-bpf: $(MESHCTL) $(if $(JITTER),$(BUILD)/tests/jitter.so)
	@$(TEST_ENV) TIERGATE_MESH='$(if $(filter yes,$(MESH)),yes,$(MESH_MISSING))' $(TEST_JITTER) \
	    $(PYTHON) -B -m pytest -p no:cacheprovider -q tests/bpf $(PYTEST_ARGS)

check-tree:
	@tests/tools/check-tree


# Goals in front of the configured tree.

# The nginx that was found, for recipes of goals that configure first.
BUILT_FOR = "$$(sed -n 's/^NGINX = //p' $(BUILD)/config.mk)"

deps:
	@./configure --builddir=$(BUILD) --install-deps=$(or $(DEPS),all) --deps-only

check:
	@./configure --builddir=$(BUILD) --install-deps=build,mesh,run,check --deps-only
	@$(MAKE) -j$(JOBS) BUILD=$(BUILD) build tests
	@tests/tools/check $(BUILD) $(SUITES)

JITTER_USUAL = 30,60

jitter:
	@./configure --builddir=$(BUILD) --install-deps=build,mesh,run,check --deps-only
	@$(MAKE) -j$(JOBS) BUILD=$(BUILD) build tests
	@JITTER=$(or $(JITTER),$(JITTER_USUAL)) tests/tools/check $(BUILD) integration bpf

SANITIZE_SUITES ?= unit fuzz

check-sanitize:
	@[ -f $(BUILD)/asan/config.mk ] || ./configure --builddir=$(BUILD)/asan --with-sanitizers
	@$(MAKE) -j$(JOBS) BUILD=$(BUILD)/asan tests $(if $(filter sql integration,$(SANITIZE_SUITES)),build)
	@tests/tools/check $(BUILD)/asan $(SANITIZE_SUITES)

demo:
	@./configure --builddir=$(BUILD) --install-deps=build,mesh,run --deps-only
	@$(MAKE) -j$(JOBS) BUILD=$(BUILD) build
	@BUILD=$(abspath $(BUILD)) NGINX=$(BUILT_FOR) examples/demo/run

bench:
	@./configure --builddir=$(BUILD) --install-deps=build,mesh,run,check,bench --deps-only
	@$(MAKE) -j$(JOBS) BUILD=$(BUILD) build mesh-tools
	@BUILD=$(abspath $(BUILD)) NGINX=$(BUILT_FOR) tests/bench/run

FUZZ_TIME ?= 60

fuzz:
	@./configure --builddir=$(BUILD) --install-deps=build,fuzz --deps-only
	@[ -f $(BUILD)/fuzz/config.mk ] || ./configure --builddir=$(BUILD)/fuzz --with-fuzzer
	@$(MAKE) -j$(JOBS) BUILD=$(BUILD)/fuzz fuzz-targets
	@tests/tools/run-fuzz $(BUILD)/fuzz $(FUZZ_TIME) $(TARGETS)

fuzz-targets: $(FUZZ)

lint:
	@./configure --builddir=$(BUILD) --install-deps=build,lint --deps-only
	@$(MAKE) BUILD=$(BUILD) $(BUILD)/config.h
	@tests/tools/lint $(BUILD)

format:
	@./configure --builddir=$(BUILD) --install-deps=lint --deps-only
	@tests/tools/lint --format

clean:
	rm -rf $(BUILD)


# Installation: packaging/install knows what goes where.

install: build
	@packaging/install $(BUILD) '$(DESTDIR)'


-include $(wildcard $(foreach dir,lib tenantd bpf tests/unit tests/fuzz tests/bpf,$(BUILD)/$(dir)/*.d))
