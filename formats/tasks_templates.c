/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tasks_templates.c - lines of raw datasets to prompts, as lm-evaluation-harness makes them
 *
 * One function a dataset; each names the fields that it reads, as the dataset's release or its
 * copy on the Hugging Face hub calls them ("one|other").
 */
#include <stdlib.h>
#include <string.h>

#include "formats/tasks_impl.h"
#include "lib/data/pystr.h"

static int add_field(struct buf *b, const struct maker *m, const char *names)
{
	size_t n;
	const char *s = maker_text(m, names, &n);

	if (s)
		buf_add(b, s, n);
	return s ? 0 : -1;
}

static int choice_field(struct maker *m, const char *names)
{
	size_t n;
	const char *s = maker_text(m, names, &n);

	return s ? maker_choice(m, m->n, s, n) : -1;
}

/* "Question: {goal}\nAnswer:" */
static int piqa(struct maker *m)
{
	struct buf *b = &m->context[0];

	m->kind = TASK_CHOICE;
	buf_puts(b, "Question: ");
	if (add_field(b, m, "goal") < 0 || choice_field(m, "sol1") < 0 ||
	    choice_field(m, "sol2") < 0)
		return -1;
	buf_puts(b, "\nAnswer:");
	return maker_gold(m, "label", 0);
}

/* Answer key of labelled choices: {"text": [...], "label": [...]} or [{"text", "label"}, ...]. */
static int labelled(struct maker *m, const struct json *choices)
{
	const struct json *texts = json_get(choices, "text"), *labels = json_get(choices, "label");
	const bool list = json_type_of(choices) == JSON_ARRAY;
	const size_t n = list ? json_len(choices) : json_len(texts);
	size_t key_n, skip;
	const char *key = maker_text(m, "answerKey", &key_n);

	if (!key)
		return -1;
	if (n == 0 || (!list && json_len(labels) != n))
		return maker_fail(m, "'choices' are no texts with labels");
	skip = pystr_leading(key, key_n);
	m->gold = n;
	for (size_t i = 0; i < n; i++) {
		const struct json *it = json_at(choices, i);
		size_t text_n, label_n;
		const char *text = json_str(list ? json_get(it, "text") : json_at(texts, i),
					    &text_n);
		const char *label = json_str(list ? json_get(it, "label") : json_at(labels, i),
					     &label_n);

		if (!text || !label)
			return maker_fail(m, "'choices' are no texts with labels");
		if (maker_choice(m, i, text, text_n) < 0)
			return -1;
		if (m->gold == n && label_n == key_n - skip &&
		    memcmp(label, key + skip, label_n) == 0)
			m->gold = i;
	}
	return m->gold < n ? 0 : maker_fail(m, "answerKey '%.40s' is none of the labels", key);
}

/* The question of ARC and OpenBookQA: a string beside "choices", or an object with both. */
static int stem(struct maker *m, const char *name, const char *before, const char *behind)
{
	const struct json *inner = json_get(m->line, "question");
	const bool whole = json_type_of(inner) == JSON_OBJECT;
	struct buf *b = &m->context[0];
	size_t n;
	const char *s = whole ? json_str(json_get(inner, "stem"), &n) : maker_text(m, name, &n);
	const struct json *choices = s ? whole ? json_get(inner, "choices") :
				     maker_field(m, "choices") : NULL;

	m->kind = TASK_CHOICE;
	if (whole && (!s || !choices))
		return maker_fail(m, "no field 'question.%s'", s ? "choices" : "stem");
	if (!choices)
		return -1;
	buf_puts(b, before);
	buf_add(b, s, n);
	buf_puts(b, behind);
	return labelled(m, choices);
}

/* "Question: {question}\nAnswer:" */
static int arc(struct maker *m)
{
	return stem(m, "question", "Question: ", "\nAnswer:");
}

/* "{question_stem}" */
static int openbookqa(struct maker *m)
{
	return stem(m, "question_stem", "", "");
}

/* "{passage}\nQuestion: {question}?\nAnswer:" no, yes */
static int boolq(struct maker *m)
{
	struct buf *b = &m->context[0];
	const struct json *label;

	m->kind = TASK_CHOICE;
	if (add_field(b, m, "passage") < 0)
		return -1;
	buf_puts(b, "\nQuestion: ");
	if (add_field(b, m, "question") < 0)
		return -1;
	buf_puts(b, "?\nAnswer:");
	if (maker_choice(m, 0, "no", 2) < 0 || maker_choice(m, 1, "yes", 3) < 0)
		return -1;
	label = json_get(m->line, "label") ? json_get(m->line, "label") :
					     json_get(m->line, "answer");
	if (json_type_of(label) != JSON_BOOL)
		return maker_gold(m, "label|answer", 0);
	m->gold = json_bool(label, false);
	return 0;
}

/* "{premise without its full stop} because|therefore", choices with a blank of their own. */
static int copa(struct maker *m)
{
	struct buf *b = &m->context[0], choice = { 0 };
	size_t n, kind_n;
	const char *s = maker_text(m, "premise", &n);
	const char *kind = s ? maker_text(m, "question", &kind_n) : NULL;
	int ret = 0;

	m->kind = TASK_CHOICE;
	if (!kind)
		return -1;
	if (strcmp(kind, "cause") != 0 && strcmp(kind, "effect") != 0)
		return maker_fail(m, "question is '%.40s', neither cause nor effect", kind);
	n = pystr_trailing(s, n);
	while (n > 0 && ((unsigned char)s[n - 1] & 0xc0) == 0x80)
		n--;
	n -= n > 0;
	buf_add(b, s + pystr_leading(s, n), n - pystr_leading(s, n));
	buf_puts(b, *kind == 'c' ? " because" : " therefore");
	for (size_t i = 0; i < 2 && ret == 0; i++) {
		s = maker_text(m, i == 0 ? "choice1" : "choice2", &n);
		buf_clear(&choice);
		buf_byte(&choice, ' ');
		if (s)
			pystr_lower_first(&choice, s, n);
		ret = !s ? -1 : maker_choice(m, i, choice.p ? choice.p : "", choice.n);
	}
	if (ret == 0)
		ret = buf_failed(&choice, m->where, m->e);
	buf_release(&choice);
	return ret < 0 ? -1 : maker_gold(m, "label", 0);
}

/* Four sentences, two endings. */
static int storycloze(struct maker *m)
{
	static const char *const sentence[] = {
		"input_sentence_1|InputSentence1", "input_sentence_2|InputSentence2",
		"input_sentence_3|InputSentence3", "input_sentence_4|InputSentence4",
	};

	m->kind = TASK_CHOICE;
	for (size_t i = 0; i < 4; i++) {
		if (i > 0)
			buf_byte(&m->context[0], ' ');
		if (add_field(&m->context[0], m, sentence[i]) < 0)
			return -1;
	}
	if (choice_field(m, "sentence_quiz1|RandomFifthSentenceQuiz1") < 0 ||
	    choice_field(m, "sentence_quiz2|RandomFifthSentenceQuiz2") < 0)
		return -1;
	return maker_gold(m, "answer_right_ending|AnswerRightEnding", 1);
}

/* Partial scoring (Trinh and Le, arXiv:1806.02847): the sentence up to its blank with each option,
 * and how likely the rest is behind it. */
static int winogrande(struct maker *m)
{
	size_t n, before, rest, option_n;
	const char *s = maker_text(m, "sentence", &n);
	const char *gap = s ? memchr(s, '_', n) : NULL;

	m->kind = TASK_SCHEMA;
	if (!s)
		return -1;
	if (!gap)
		return maker_fail(m, "no '_' in the sentence");
	before = (size_t)(gap - s);
	rest = before + 1 + pystr_leading(gap + 1, n - before - 1);
	buf_add(&m->continuation[0], s + rest, pystr_trailing(s + rest, n - rest));
	for (size_t i = 0; i < 2; i++) {
		const char *option = maker_text(m, i == 0 ? "option1" : "option2", &option_n);

		if (!option || maker_choice(m, i, s, before) < 0)
			return -1;
		buf_add(&m->context[i], option, option_n);
	}
	return maker_gold(m, "answer", 1);
}

/* re.sub(r"\[.*?\]", "", s): a dot is no newline. */
static void drop_brackets(struct buf *out, const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		size_t end = i;

		if (s[i] == '[')
			while (end < n && s[end] != ']' && s[end] != '\n')
				end++;
		if (s[i] == '[' && end < n && s[end] == ']')
			i = end;
		else
			buf_byte(out, s[i]);
	}
}

/* HellaSwag's WikiHow half is full of marks. */
static void clean(struct buf *out, const struct buf *text)
{
	const char *s = text->p != NULL ? text->p : "";
	const size_t skip = pystr_leading(s, text->n);
	struct buf titles = { 0 }, plain = { 0 };

	pystr_replace(&titles, s + skip, pystr_trailing(s + skip, text->n - skip), " [title]",
		      ". ");
	drop_brackets(&plain, titles.p, titles.n);
	pystr_replace(out, plain.p, plain.n, "  ", " ");
	out->failed = out->failed || titles.failed || plain.failed;
	buf_release(&titles);
	buf_release(&plain);
}

static int hellaswag_endings(struct maker *m)
{
	const struct json *list = maker_field(m, "endings");
	struct buf raw = { 0 }, text = { 0 };
	int ret = 0;

	if (list && (json_type_of(list) != JSON_ARRAY || json_len(list) == 0))
		return maker_fail(m, "'endings' are no list, or empty");
	for (size_t i = 0; list && i < json_len(list) && ret == 0; i++) {
		size_t n;
		const char *s = json_str(json_at(list, i), &n);

		if (!s) {
			ret = maker_fail(m, "element %zu of 'endings' is not a string", i);
			break;
		}
		buf_clear(&raw);
		buf_clear(&text);
		buf_add(&raw, s, n);
		clean(&text, &raw);
		ret = buf_failed(&text, m->where, m->e);
		if (ret == 0)
			ret = maker_choice(m, i, text.p ? text.p : "", text.n);
	}
	buf_release(&raw);
	buf_release(&text);
	return list ? ret : -1;
}

/* "{activity_label}: {ctx_a} {ctx_b capitalized}", cleaned */
static int hellaswag(struct maker *m)
{
	struct buf raw = { 0 };
	size_t n;
	const char *s;
	int ret = add_field(&raw, m, "activity_label");

	m->kind = TASK_CHOICE;
	buf_puts(&raw, ": ");
	ret = ret < 0 ? ret : add_field(&raw, m, "ctx_a");
	buf_byte(&raw, ' ');
	s = ret < 0 ? NULL : maker_text(m, "ctx_b", &n);
	if (s) {
		pystr_capitalize(&raw, s, n);
		clean(&m->context[0], &raw);
		ret = buf_failed(&raw, m->where, m->e);
	}
	buf_release(&raw);
	if (!s || ret < 0 || hellaswag_endings(m) < 0)
		return -1;
	return maker_gold(m, "label", 0);
}

/* All but the last word, and that word. */
static int lambada(struct maker *m)
{
	size_t n, cut;
	const char *s = maker_text(m, "text", &n);

	if (!s)
		return -1;
	m->kind = TASK_CLOZE;
	m->n = 1;
	for (cut = n; cut > 0 && s[cut - 1] != ' ';)
		cut--;
	buf_add(&m->context[0], s, cut > 0 ? cut - 1 : 0);
	buf_add(&m->continuation[0], s + cut, n - cut);
	return 0;
}

/* "Q: {context} {question}\nA:" */
static int social_iqa(struct maker *m)
{
	struct buf *b = &m->context[0];

	m->kind = TASK_CHOICE;
	buf_puts(b, "Q: ");
	if (add_field(b, m, "context") < 0)
		return -1;
	buf_byte(b, ' ');
	if (add_field(b, m, "question") < 0)
		return -1;
	buf_puts(b, "\nA:");
	if (choice_field(m, "answerA") < 0 || choice_field(m, "answerB") < 0 ||
	    choice_field(m, "answerC") < 0)
		return -1;
	return maker_gold(m, "label", 1);
}

static const struct template templates[] = {
	{ "arc_challenge", "\nAnswer: ", arc },
	{ "arc_easy", "\nAnswer: ", arc },
	{ "boolq", "\nAnswer: ", boolq },
	{ "copa", NULL, copa },
	{ "hellaswag", NULL, hellaswag },
	{ "lambada", NULL, lambada },
	{ "lambada_openai", NULL, lambada },
	{ "lambada_standard", NULL, lambada },
	{ "openbookqa", NULL, openbookqa },
	{ "piqa", "Answer: ", piqa },
	{ "social_iqa", NULL, social_iqa },
	{ "storycloze", NULL, storycloze },
	{ "storycloze_2016", NULL, storycloze },
	{ "storycloze_2018", NULL, storycloze },
	{ "winogrande", NULL, winogrande },
};

const struct template *template_find(const char *name)
{
	for (size_t i = 0; i < sizeof(templates) / sizeof(*templates); i++)
		if (strcmp(templates[i].name, name) == 0)
			return &templates[i];
	return NULL;
}

void template_names(struct buf *out)
{
	for (size_t i = 0; i < sizeof(templates) / sizeof(*templates); i++)
		buf_printf(out, "%s%s", i > 0 ? ", " : "", templates[i].name);
}
