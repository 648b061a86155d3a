# SPDX-License-Identifier: Apache-2.0
# sweep.mk - one forward pass, many quantizations
#
#     make -f pipelines/sweep.mk MODEL=model/ CALIB=calib.qp TEXT=wiki.test.raw OUT=sweep
#
# record-acts runs the model over the calibration set once and keeps its Hessians; each cell of BITS x
# GROUPS x OPTIONS is then a solve of its own from that file, with the table of its errors, the
# perplexity of TEXT and the divergence from the model as it came.  $(OUT)/table.tsv has a line for
# each.  An option is one word, its parts
# joined by commas and without dots: OPTIONS="default --plain --act-order,--sweeps=4"; default stands
# for none.
# SEQUENTIAL=1 adds each cell with --sequential: what recorded statistics give away.
# The programs are looked for in PATH; jobs of make run side by side (-j).
MODEL   ?= $(error MODEL= is a directory, a GGUF or llama2.c file)
CALIB   ?= $(error CALIB= is what calib-pack wrote)
TEXT    ?= $(error TEXT= is a file to take the perplexity of)
OUT     ?= sweep
BITS    ?= 2 3 4
GROUPS  ?= 128
OPTIONS ?= --plain default
CTX     ?= 2048
WINDOWS ?= 8
SEQUENTIAL ?=

comma := ,
CELLS := $(foreach b,$(BITS),$(foreach g,$(GROUPS),$(foreach o,$(OPTIONS),b$(b).g$(g).$(o))))
CELLS += $(if $(SEQUENTIAL),$(CELLS:%=%.sequential))

.DELETE_ON_ERROR:
.PHONY: all
all: $(OUT)/table.tsv

$(OUT)/acts.qp:
	@mkdir -p $(OUT)
	record-acts -q --calib='$(CALIB)' '$(MODEL)' -o $@

# What a cell's name says: the word at a place between dots.
part = $(word $1,$(subst ., ,$(basename $(notdir $2))))

$(OUT)/%.qp: $(OUT)/acts.qp
	gptq -q $(patsubst b%,-b %,$(call part,1,$@)) $(patsubst g%,-g %,$(call part,2,$@)) \
		$(subst $(comma), ,$(filter-out default,$(call part,3,$@))) \
		$(if $(filter %.sequential.qp,$@),--sequential) $< -o $@

$(OUT)/%.errors: $(OUT)/%.qp
	qp-ls --errors --tsv $< > $@

$(OUT)/full: $(OUT)/acts.qp
	eval-ppl -q --json --ctx=$(CTX) --windows=$(WINDOWS) --text='$(TEXT)' --save-logits=$@ $< \
		> $@.json

$(OUT)/%.json: $(OUT)/%.qp $(OUT)/full
	eval-ppl -q --json --ctx=$(CTX) --windows=$(WINDOWS) --text='$(TEXT)' \
		--kl=$(OUT)/full $< > $@

# number KEY CELL: a number of its evaluation
number = sed 's/.*"$1": *\([-0-9.e]*\).*/\1/' '$(OUT)/'"$2".json

$(OUT)/table.tsv: $(CELLS:%=$(OUT)/%.errors) $(CELLS:%=$(OUT)/%.json)
	{ printf 'cell\tmean_rel_err\tperplexity\tkl\n'; \
	  printf 'full\t0\t%s\t0\n' "$$($(call number,ppl,full))"; \
	  for c in $(CELLS); do \
		awk -F '\t' -v c="$$c" -v p="$$($(call number,ppl,$$c))" \
			-v k="$$($(call number,kl,$$c))" 'NR > 1 { s += $$4; n++ } \
			END { printf "%s\t%.6f\t%s\t%s\n", c, n ? s / n : 0, p, k }' \
			'$(OUT)/'"$$c".errors; \
	  done; } > $@
