# SPDX-License-Identifier: Apache-2.0
# sweep.mk - one forward pass, many quantizations
#
#     make -f pipelines/sweep.mk MODEL=model/ CALIB=calib.qp TEXT=wiki.test.raw OUT=sweep
#
# record-acts runs the model over the calibration set once and keeps its Hessians; each cell of BITS x
# GROUPS x OPTIONS is then a solve of its own from that file, with the table of its errors, the
# perplexity of TEXT and the divergence from the model as it came.  $(OUT)/table.tsv has a line for
# each, and the seconds that it took: of the first line, those of the forward pass.  What another
# MODEL, CALIB, TEXT, CTX or WINDOWS changes is made anew.  An option is one word, its parts
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
.PHONY: all again
all: $(OUT)/table.tsv

# Files that say what the rest was made of, and are older than it as long as that is so.
said = @mkdir -p $(OUT); echo '$1' | cmp -s - $@ || echo '$1' > $@
$(OUT)/of-model: again
	$(call said,$(MODEL) $(CALIB))
$(OUT)/of-text: again
	$(call said,$(TEXT) $(CTX) $(WINDOWS))
$(OUT)/of-cells: again
	$(call said,$(CELLS))

# seconds COMMAND: the command, and the seconds that it took in $@.seconds
seconds = s=$$(date +%s.%N) && $1 && echo "$$s $$(date +%s.%N)" | \
	awk '{ printf "%.1f\n", $$2 - $$1 }' > $@.seconds

$(OUT)/acts.qp: $(OUT)/of-model $(CALIB)
	$(call seconds,record-acts -q --calib='$(CALIB)' '$(MODEL)' -o $@)

# What a cell's name says: the word at a place between dots.
part = $(word $1,$(subst ., ,$(basename $(notdir $2))))

$(OUT)/%.qp: $(OUT)/acts.qp
	$(call seconds,gptq -q $(patsubst b%,-b %,$(call part,1,$@)) \
		$(patsubst g%,-g %,$(call part,2,$@)) \
		$(subst $(comma), ,$(filter-out default,$(call part,3,$@))) \
		$(if $(filter %.sequential.qp,$@),--sequential) $< -o $@)

$(OUT)/%.errors: $(OUT)/%.qp
	qp-ls --errors --tsv $< > $@

$(OUT)/full: $(OUT)/acts.qp $(OUT)/of-text $(TEXT)
	eval-ppl -q --json --ctx=$(CTX) --windows=$(WINDOWS) --text='$(TEXT)' --save-logits=$@ $< \
		> $@.json

$(OUT)/%.json: $(OUT)/%.qp $(OUT)/full
	eval-ppl -q --json --ctx=$(CTX) --windows=$(WINDOWS) --text='$(TEXT)' \
		--kl=$(OUT)/full $< > $@

# number KEY CELL: a number of its evaluation
number = sed 's/.*"$1": *\([-0-9.e]*\).*/\1/' '$(OUT)/'"$2".json

$(OUT)/table.tsv: $(OUT)/of-cells $(CELLS:%=$(OUT)/%.errors) $(CELLS:%=$(OUT)/%.json)
	{ printf 'cell\tmean_rel_err\tperplexity\tkl\tseconds\n'; \
	  printf 'full\t0\t%s\t0\t%s\n' "$$($(call number,ppl,full))" \
		"$$(cat '$(OUT)/acts.qp.seconds')"; \
	  for c in $(CELLS); do \
		awk -F '\t' -v c="$$c" -v p="$$($(call number,ppl,$$c))" \
			-v k="$$($(call number,kl,$$c))" -v t="$$(cat '$(OUT)/'"$$c".qp.seconds)" \
			'NR > 1 { s += $$4; n++ } \
			END { printf "%s\t%.6f\t%s\t%s\t%s\n", c, n ? s / n : 0, p, k, t }' \
			'$(OUT)/'"$$c".errors; \
	  done; } > $@
