# make                              every program into build/bin, its man page into build/man
# make check                        lint, then every test; T="lint unit/stream" only those
# make lint                         rules a script can check: the include graph, banned functions, man pages
# make bench                        the figures of README.md, as ratios measured in one run
# make bench-compare                those in build/bench beside tests/bench/bench.tsv
# make SAN=address,undefined check  the same tests, instrumented, in a tree of their own
# make bench-quality T="tiny smol"  perplexity at equal bits: ours, peers, plain GPTQ, rounding
# make fuzz SECONDS=60              each fuzz target for so long, with clang
# make install DESTDIR= PREFIX=     programs, man pages, the calibration text

PREFIX  ?= /usr/local
BINDIR   = $(DESTDIR)$(PREFIX)/bin
MANDIR   = $(DESTDIR)$(PREFIX)/share/man
DATADIR  = $(DESTDIR)$(PREFIX)/share/quantpipe
CFLAGS  ?= -O2 -g
SAN     ?=
comma   := ,
BUILD   ?= build$(if $(SAN),/$(subst $(comma),-,$(SAN)))

# Our own flags are kept apart from CFLAGS, which belongs to the user.
DEPS    := msgpack libzstd openblas libxxhash jansson libpcre2-8 libutf8proc libpng libjpeg
# msgpack-c's package file has another name from version 5 on.
DEPS    := $(if $(shell pkg-config --exists msgpack && echo y),$(DEPS),$(subst msgpack,msgpack-c,$(DEPS)))
VERSION := $(shell cat VERSION)
# The date on the man pages: that of VERSION, so that a build does not depend on the day.
RELEASED := 2026-11-22
QFLAGS  := -std=c11 -D_GNU_SOURCE -I. -DQP_VERSION='"$(VERSION)"' -Wall -Wextra -Wpedantic -Wshadow \
           -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wwrite-strings $(if $(WERROR),-Werror) \
           -ffp-contract=off -pthread $(shell pkg-config --cflags $(DEPS))
QFLAGS  += $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer)
LDLIBS  += -Wl,--as-needed $(shell pkg-config --libs $(DEPS)) -ldl -lm

# bin/NAME.c is the whole registration of a program; tests/unit/NAME.c of a unit test.
PROGS   := $(patsubst bin/%.c,%,$(sort $(wildcard bin/*.c)))
UNITS   := $(patsubst tests/unit/%.c,%,$(sort $(wildcard tests/unit/*.c)))
LIBOBJ  := $(patsubst %.c,$(BUILD)/%.o,$(sort $(wildcard lib/*/*.c formats/*.c)))
BINS    := $(PROGS:%=$(BUILD)/bin/%)
UNITBIN := $(UNITS:%=$(BUILD)/unit/%)
BENCHES := $(patsubst tests/bench/%.c,%,$(sort $(wildcard tests/bench/*.c tests/bench/tools/*.c)))
BENCHBIN := $(BENCHES:%=$(BUILD)/bench/%)
FUZZES  := $(patsubst tests/fuzz/%.c,%,$(sort $(wildcard tests/fuzz/*.c)))
FUZZBIN := $(FUZZES:%=$(BUILD)/fuzz/%)
SHIMS   := $(patsubst tests/shim/%.c,$(BUILD)/shim/%.so,$(wildcard tests/shim/*.c))
MANS    := $(PROGS:%=$(BUILD)/man/man1/%.1) $(patsubst man/%,$(BUILD)/man/man5/%,$(wildcard man/*.5)) \
           $(patsubst man/%,$(BUILD)/man/man7/%,$(wildcard man/*.7))
DATA    := $(BUILD)/share/quantpipe/calibration.txt

.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: all man unit tests check lint bench bench-compare bench-quality interop fuzz install \
	uninstall clean
all: $(BINS) man $(DATA)
man: $(MANS)
unit: $(UNITBIN)

# Arithmetic is worth the optimizer's time; without traps it vectorizes "a > b ? x : y".
$(BUILD)/lib/compute/%.o $(BUILD)/lib/method/%.o $(BUILD)/lib/data/dtype.o $(BUILD)/formats/ggml.o: QFLAGS += -O3 -fno-trapping-math

$(BUILD)/%.o: %.c Makefile VERSION
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) $(QFLAGS) -MMD -MP -c -o $@ $<

# Apart, so that bin/ holds programs only.
$(BUILD)/obj/%.o: %.c Makefile VERSION
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) $(QFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/libquantpipe.a: $(LIBOBJ)
	$(RM) $@
	$(AR) rcs $@ $^

$(BINS): $(BUILD)/bin/%: $(BUILD)/obj/bin/%.o $(BUILD)/libquantpipe.a
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(QFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(UNITBIN): $(BUILD)/unit/%: $(BUILD)/tests/unit/%.o $(BUILD)/libquantpipe.a
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(QFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/man/man1/%.1: $(BUILD)/bin/% man/mkman man/common.body $(wildcard man/*.body)
	@mkdir -p $(@D)
	man/mkman $* man/$*.body man/common.body $(VERSION) $(RELEASED) $< > $@

$(BUILD)/man/man5/%: man/%
	@mkdir -p $(@D)
	cp $< $@

$(BUILD)/man/man7/%: man/%
	@mkdir -p $(@D)
	cp $< $@

$(DATA): man/calibration.txt
	@mkdir -p $(@D)
	cp $< $@

# Fuzz targets: by themselves in "make check", behind clang's fuzzer in "make fuzz".
$(FUZZBIN): $(BUILD)/fuzz/%: $(BUILD)/tests/fuzz/%.o $(BUILD)/tests/fuzz/driver/replay.o \
		$(BUILD)/libquantpipe.a
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(QFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/libfuzzer/%: $(BUILD)/tests/fuzz/%.o $(BUILD)/libquantpipe.a
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(QFLAGS) $(LDFLAGS) -fsanitize=fuzzer -o $@ $^ $(LDLIBS)

# The fault shim is preloaded into programs: never instrumented.
$(BUILD)/shim/%.so: tests/shim/%.c tests/shim/count.h
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -I. -std=c11 -Wall -Wextra -fPIC -shared -o $@ $<

$(BENCHBIN): $(BUILD)/bench/%: $(BUILD)/tests/bench/%.o $(BUILD)/libquantpipe.a
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(QFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

tests: unit $(FUZZBIN) $(SHIMS)
check: all tests
	@BUILD='$(BUILD)' SAN='$(SAN)' sh tests/check.sh $(T)

lint: man
	@SAN='$(SAN)' sh tests/lint.sh $(BUILD)

bench: all $(BENCHBIN)
	@BUILD='$(BUILD)' sh tests/bench/bench.sh $(T)

bench-compare:
	@sh tests/bench/compare.sh tests/bench/bench.tsv $(BUILD)/bench/bench.tsv

bench-quality: all
	@PATH="$$(realpath $(BUILD))/bin:$$PATH" sh tests/bench/quality.sh $(T)

interop: all
	@BUILD='$(BUILD)' sh tests/interop/run.sh

fuzz-%: $(BUILD)/libfuzzer/%
	@mkdir -p $(BUILD)/corpus/$*
	cp $$(sed -n 's/^$* //p' tests/fuzz/seeds) $(BUILD)/corpus/$*
	$< -max_total_time=$(or $(SECONDS),60) $(BUILD)/corpus/$*

fuzz:
	$(MAKE) CC=clang SAN=fuzzer-no-link,address,undefined $(FUZZES:%=fuzz-%)

install: all
	install -d $(BINDIR) $(MANDIR)/man1 $(MANDIR)/man5 $(MANDIR)/man7 $(DATADIR)
	install -m 755 $(BINS) $(BINDIR)
	for m in $(MANS:$(BUILD)/man/%=%); do install -m 644 $(BUILD)/man/$$m $(MANDIR)/$$m || exit 1; done
	install -m 644 $(DATA) man/calibration.README LICENSE $(DATADIR)

uninstall:
	$(RM) $(PROGS:%=$(BINDIR)/%) $(MANS:$(BUILD)/man/%=$(MANDIR)/%)
	$(RM) -r $(DATADIR)

clean:
	$(RM) -r build

-include $(LIBOBJ:.o=.d) $(PROGS:%=$(BUILD)/obj/bin/%.d) $(UNITS:%=$(BUILD)/tests/unit/%.d) \
         $(BENCHES:%=$(BUILD)/tests/bench/%.d) $(FUZZES:%=$(BUILD)/tests/fuzz/%.d)
