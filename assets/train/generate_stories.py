#!/usr/bin/env python3
"""Procedural generator of short, connected children's stories.

Every story is a plot (a Python function) played by a cast of characters whose names,
pronouns, kinds, homes and belongings are tracked from the first sentence to the last.
The sentences are templates:

    {a|b|c}        one of the alternatives (they nest; an empty one is allowed)
    <H>            a reference to character H (its name, or "the little fox")
    <H.he>         a pronoun or another attribute of H (he him his self s a kind go paws ...)
    <obj>          a story variable, itself a template
    [H:text]       H says text; the tag's wording and position vary
    [H/ask:text]   the same, in a tone (see TONES)

All text is written for this project. The output is deterministic for a seed.

    python3 generate_stories.py --out synthetic.txt --megabytes 60 --seed 1 --workers 8
    python3 generate_stories.py --show 5
"""
import argparse
import multiprocessing
import random
import re
import sys

# ---------------------------------------------------------------- template engine

_CACHE = {}


def parse(text):
    node = _CACHE.get(text)
    if node is None:
        node, end = _parse(text, 0, "")
        if end != len(text):
            raise ValueError("unbalanced template: " + text)
        _CACHE[text] = node
    return node


def _parse(text, i, stops):
    out, buf, n = [], [], len(text)
    while i < n:
        c = text[i]
        if c in stops:
            break
        if c == "{":
            alts = []
            while True:
                node, i = _parse(text, i + 1, "|}")
                alts.append(node)
                if i >= n:
                    raise ValueError("unclosed { in " + text)
                if text[i] == "}":
                    break
            item = ("alt", alts)
        elif c == "<":
            j = text.index(">", i)
            item, i = ("ref", text[i + 1:j]), j
        elif c == "[":
            j = text.index(":", i)
            who = text[i + 1:j]
            node, i = _parse(text, j + 1, "]")
            if i >= n:
                raise ValueError("unclosed [ in " + text)
            item = ("say", who, node)
        else:
            buf.append(c)
            i += 1
            continue
        if buf:
            out.append("".join(buf))
            buf = []
        out.append(item)
        i += 1
    if buf:
        out.append("".join(buf))
    return out, i


# tone: (verbs, ways to say it, little actions that can stand in for a tag)
TONES = {
    "say": (["said"], ["", "", "", "softly"], []),
    "ask": (["asked"], ["", "", ""], ["<*> {tilted|turned} <*.his> head.", "<*> looked up."]),
    "answer": (["said", "answered", "replied"], ["", "", ""], ["<*> {thought|paused} for a moment.", "<*> nodded."]),
    "happy": (["said", "said", "said", "cheered"], ["", "happily", "with a {big|bright|wide} smile", "with a grin"],
              ["<*> {smiled|laughed|grinned}.", "<*> jumped up and down.", "<*> clapped <*.his> <*.paws>.",
               "<*.s> eyes {shone|sparkled|lit up}."]),
    "sad": (["said"], ["sadly", "in a {small|quiet|sad} voice", "with tears in <*.his> eyes"],
            ["<*> looked down at the ground.", "<*> sniffed.", "<*> wiped away a tear.", "<*> {sighed|hung <*.his> head}."]),
    "cry": (["cried", "called", "shouted"], ["", "", "loudly"], []),
    "kind": (["said"], ["kindly", "gently", "softly", "in a warm voice", "with a kind smile"],
             ["<*> {smiled|smiled kindly}.", "<*> nodded slowly.", "<*> smiled warmly."]),
    "scared": (["whispered", "said"], ["in a shaky voice", "quietly", "in a tiny voice"],
               ["<*> {shivered|trembled}.", "<*> took a step back.", "<*> swallowed hard."]),
    "angry": (["said", "shouted"], ["angrily", "crossly", "in a loud voice"], ["<*> frowned.", "<*> stamped <*.his> foot."]),
    "whisper": (["whispered"], ["", "", "softly"], []),
    "think": (["thought"], ["", "to <*.self>"], []),
    "sorry": (["said"], ["quietly", "in a small voice", "with tears in <*.his> eyes", "softly"],
              ["<*> looked at the floor.", "<*> took a deep breath.", "<*> hung <*.his> head."]),
    "grump": (["grumbled", "growled", "muttered"], ["", ""], ["<*> frowned.", "<*> crossed <*.his> arms."]),
    "wise": (["said"], ["wisely", "slowly", "in a {deep|calm|soft} voice"],
             ["<*> blinked slowly.", "<*> thought for a long time.", "<*> nodded."]),
}

_CAP = re.compile(r'(^|[.!?]["\']?\s+)(["\']?)([a-z])')
_CAPQ = re.compile(r'([,:] ")([a-z])')
_TAG = re.compile(r'([!?]" )(?=(?:the voice|someone|they|it|he|she) (?:all )?(?:said|cried|shouted|called|asked)\b|(?:said|asked|cried|shouted) )')
_AN = re.compile(r'\b([Aa])n? (?=([A-Za-z]+))')
_AN_NOT = re.compile(r'(?i)(uni|use|usu|one\b|once|eu)')


def _article(m):
    w = m.group(2)
    vowel = (w[0] in "aeiouAEIOU" and not _AN_NOT.match(w)) or w.lower() in ("hour", "honest")
    return m.group(1) + ("n " if vowel else " ")


def polish(text):
    text = re.sub(r"  +", " ", text).strip()
    text = re.sub(r" ([,.!?])", r"\1", text)
    text = _TAG.sub("\\1\x01", text)
    text = _CAP.sub(lambda m: m.group(1) + m.group(2) + m.group(3).upper(), text)
    text = _CAPQ.sub(lambda m: m.group(1) + m.group(2).upper(), text)
    text = _AN.sub(_article, text)
    return text.replace("\x01", "")


PRON = {
    "m": dict(he="he", him="him", his="his", hers="his", self="himself", boy="boy", son="son", man="man", sib="brother"),
    "f": dict(he="she", him="her", his="her", hers="hers", self="herself", boy="girl", son="daughter", man="woman", sib="sister"),
    "n": dict(he="it", him="it", his="its", hers="its", self="itself", boy="one", son="child", man="one", sib="friend"),
}


class Char:
    def __init__(self, kind, gender, name=None, adj="little", human=False, fixed=None, **attr):
        self.kind, self.gender, self.name, self.adj, self.human = kind, gender, name, adj, human
        self.fixed = fixed            # a fixed reference such as "his mom"
        self.attr = attr
        self.shown = name is None     # has the reader been told its kind?

    def ref(self, s):
        if self.fixed:
            return self.fixed
        if self.name and (self.human or not self.shown or s.r.random() < 0.82 or s.same_kind(self)):
            return self.name
        if self.human and not self.name:
            return "the " + self.kind
        if self.adj and s.r.random() < 0.35:
            return "the %s %s" % (self.adj, self.kind)
        return "the " + self.kind

    def get(self, s, a):
        p = PRON[self.gender]
        if a in p:
            return p[a]
        if a == "n":
            return self.name or self.fixed or "the " + self.kind
        if a == "s":
            t = self.ref(s)
            return t + "'s"
        if a in ("a", "ak"):
            self.shown = True
        if a == "a":
            base = "a %s %s" % (self.adj, self.kind) if self.adj else "a " + self.kind
            return base + ("{ named | called | named }" + self.name if self.name else "")
        if a == "ak":
            return "a %s %s" % (self.adj, self.kind) if self.adj else "a " + self.kind
        if a == "voc":                # how others speak to this one
            return self.name or self.attr.get("call") or "little " + self.kind
        if a == "kind":
            return self.kind
        if a == "adj":
            return self.adj
        return self.attr[a]


class Story:
    def __init__(self, rng):
        self.r, self.v, self.c = rng, {}, {}
        self.paras, self.cur, self.last = [], [], None
        self.v["day"] = DAY
        self.v["air"] = AIR

    # -- randomness
    def pick(self, *a):
        return self.r.choice(a[0] if len(a) == 1 else a)

    def some(self, seq, n):
        return self.r.sample(list(seq), n)

    def chance(self, p):
        return self.r.random() < p

    # -- cast
    def put(self, key, char):
        self.c[key] = char
        return char

    def same_kind(self, char):
        return any(c is not char and c.kind == char.kind for c in self.c.values())

    # -- expansion
    def x(self, text):
        return self._nodes(parse(text))

    def _nodes(self, nodes):
        out = []
        for node in nodes:
            if isinstance(node, str):
                out.append(node)
            elif node[0] == "alt":
                out.append(self._nodes(self.r.choice(node[1])))
            elif node[0] == "ref":
                out.append(self._ref(node[1]))
            else:
                said = self._say(node[1], self._nodes(node[2]))
                out.append(said if said[-1] in '.!?"' else said + ".")
        return "".join(out)

    def _ref(self, key):
        if "." in key:
            k, a = key.split(".", 1)
            if k in self.c:
                val = self.c[k].get(self, a)
                if a in ("s", "a", "n"):
                    self.last = k
                return self.x(val) if "{" in val or "<" in val else val
        if key in self.c:
            self.last = key
            val = self.c[key].ref(self)
            return val
        val = self.v[key]
        if isinstance(val, (list, tuple)):        # a new choice at each use
            return self.x(self.r.choice(val))
        self.v[key] = val = self.x(val)           # a single text stays what it was
        return val

    def _say(self, who, line):
        k, _, tone = who.partition("/")
        verbs, ways, acts = TONES[tone or "say"]
        line = line.strip()
        line = line[0].upper() + line[1:]
        pronoun_ok = self.last == k
        sub = lambda t: t.replace("<*", "<" + k)
        way = self.x(sub(self.pick(ways)))
        way = " " + way if way else ""
        if tone == "ask" and not line.endswith("?"):
            verbs = ["said"]
        verb = self.pick(verbs)
        if verb != "said" and way not in (" happily", " loudly", " crossly", " softly"):
            way = ""
        if acts and self.chance(0.16):
            return self.x(sub(self.pick(acts))) + ' "' + line + '"'
        use_pron = pronoun_ok and self.chance(0.4)
        name = self.c[k].get(self, "he") if use_pron else self._ref(k)
        self.last = k
        if self.chance(0.36):
            return name + " " + verb + way + ', "' + line + '"'
        quoted = line[:-1] + "," if line.endswith(".") else line
        if not use_pron and self.chance(0.5) and self.c[k].fixed is None:
            return '"%s" \x01%s %s%s' % (quoted, verb, name, way)
        return '"%s" \x01%s %s%s' % (quoted, name, verb, way)

    # -- writing
    def __call__(self, *alts):
        """Append one of the given texts to the current paragraph."""
        text = self.x(self.pick(alts)).strip()
        if not text:
            return
        if text[-1] not in '.!?"':
            text += "."
        self.cur.append(text)

    def maybe(self, p, *alts):
        if self.chance(p):
            self(*alts)

    def p(self, *alts):
        """Start a new paragraph."""
        if self.cur:
            self.paras.append(polish(" ".join(self.cur)))
            self.cur = []
        self.last = None
        if alts:
            self(*alts)

    def text(self):
        self.p()
        return "\n".join(self.paras)


# ---------------------------------------------------------------- vocabulary

GIRLS = ("Lily Mia Anna Lucy Sara Sarah Jane Sue Daisy Molly Jill Lila Sally Mary Amy Emma Grace Jenny Emily Bella Polly "
         "Rosie Lisa Lola Ella Sophie Lulu Luna Kate Alice Ruby Tilly Nora Zoe Ivy Clara Maya Hana Nina Olive Penny June "
         "Hazel Poppy Stella Eva Leah Ada Iris Fay Tara Mila Elsa Wendy Holly").split()
BOYS = ("Ben Tom Timmy Jack Tim Sam Max John Bob Joe Billy Andy Jake Jimmy Jim James Dave Alex Danny Henry Pete Bobby Frank "
        "Peter Leo George Mark Ted Fred Charlie Mike Toby Oliver Matt Noah Finn Hugo Oscar Eli Theo Luke Adam Will Ravi Omar "
        "Kai Nico Otto Felix Simon Ned Gus Jonah Milo Arlo").split()
PET_M = ("Pip Benny Sammy Rex Spike Bobo Rusty Bruno Fuzzy Buddy Oscar Hopper Nibbles Tucker Barney Chester Rolo Momo Biscuit "
         "Gilbert Fergus Teddy Bumble Pepper Ziggy Scout Patch Waffle Moss Acorn Jasper Basil Finn Otis").split()
PET_F = ("Daisy Bella Fluffy Mimi Lulu Dotty Rosie Honey Clover Hazel Poppy Willow Pebble Maple Ruby Olive Ginger Coco Luna "
         "Fern Tilly Bluebell Pearl Misty Nutmeg Holly Juniper Berry Sunny Penny Minnie Flora Marigold Pippa").split()

#        kind        home                                                                       move                      paws     size
ANIMALS = {
    "fox": ("in a {cozy|warm|little} den {under an old oak tree|at the edge of the forest|beside a mossy rock}", "{ran|trotted|hurried}", "paws"),
    "rabbit": ("in a {cozy|warm|little} burrow {under the hill|in the meadow|near the carrot field}", "{hopped|ran|hurried}", "paws"),
    "bear": ("in a {big|warm|quiet} cave {in the forest|on the hill|near the river}", "{walked|ran|hurried}", "paws"),
    "mouse": ("in a {tiny|cozy} hole {in the wall of an old house|under a big barn|under the roots of a tree}", "{ran|scurried|hurried}", "paws"),
    "squirrel": ("in {a hollow tree|the top of a tall oak tree|a nest of leaves high in a tree}", "{ran|jumped|hurried}", "paws"),
    "hedgehog": ("under {a pile of dry leaves|a big bush|the roots of an old tree}", "{walked|hurried|waddled}", "paws"),
    "cat": ("in {a small house with a red roof|a sunny house by the sea|a house at the end of the road}", "{ran|walked|hurried}", "paws"),
    "dog": ("in {a small house with a big yard|a house on a hill|a house near the park}", "{ran|trotted|hurried}", "paws"),
    "puppy": ("in {a small house with a big yard|a house on a hill|a house near the park}", "{ran|trotted|bounced}", "paws"),
    "kitten": ("in {a small house with a red roof|a warm barn|a house at the end of the road}", "{ran|jumped|hurried}", "paws"),
    "duck": ("{beside|near} {a blue pond|a quiet lake|a little river}", "{waddled|hurried|ran}", "wings"),
    "bird": ("in a {small|cozy|round} nest {in a tall tree|at the top of an apple tree|near the roof of a barn}", "{flew|hurried|flew}", "wings"),
    "owl": ("in {a hollow tree|an old barn|a tall pine tree}", "{flew|flew quietly|hurried}", "wings"),
    "pig": ("on {a big farm|a farm near a village|a small farm}", "{ran|trotted|hurried}", "feet"),
    "lamb": ("on {a green hill|a big farm|a small farm}", "{ran|skipped|trotted}", "feet"),
    "pony": ("on {a green hill|a big farm|a farm near the sea}", "{ran|galloped|trotted}", "feet"),
    "elephant": ("near {a wide river|a big green jungle|a watering hole}", "{walked|ran|marched}", "feet"),
    "monkey": ("in {a tall tree in the jungle|a green jungle|the trees by the river}", "{ran|swung|jumped}", "hands"),
    "lion": ("in {a sunny land with tall grass|a cave near the plain}", "{ran|walked|hurried}", "paws"),
    "deer": ("in {a quiet forest|a green valley|the woods by a stream}", "{ran|walked|leaped}", "feet"),
    "frog": ("{beside|near} {a green pond|a muddy pond|a little stream}", "{hopped|jumped|hurried}", "feet"),
    "turtle": ("{beside|near} {a quiet pond|a blue lake|a slow river}", "{walked|walked slowly|went}", "feet"),
    "raccoon": ("in {a hollow log|an old tree|a den by the stream}", "{ran|hurried|walked}", "paws"),
    "beaver": ("in {a house made of sticks|a cozy lodge on the river}", "{walked|hurried|ran}", "paws"),
    "badger": ("in a {warm|deep|cozy} den under {the hill|the trees}", "{walked|hurried|ran}", "paws"),
    "penguin": ("on {a land of ice and snow|a snowy shore}", "{waddled|slid|hurried}", "wings"),
    "goat": ("on {a rocky mountain|a small farm}", "{ran|jumped|trotted}", "feet"),
    "panda": ("in {a quiet bamboo forest|the green mountains}", "{walked|rolled|hurried}", "paws"),
    "koala": ("in {a tall gum tree|a quiet forest}", "{climbed|hurried|went}", "paws"),
    "mole": ("under {the garden|a grassy hill}", "{hurried|walked|scurried}", "paws"),
}
FANTASY = {
    "dragon": ("in {a cave on a mountain|an old castle|a valley full of flowers}", "{flew|walked|hurried}", "feet"),
    "robot": ("in {a small workshop|a big city|a house full of tools}", "{rolled|walked|hurried}", "hands"),
    "fairy": ("inside {a pink flower|a hollow tree|a tiny house made of leaves}", "{flew|fluttered|hurried}", "hands"),
    "elf": ("in {a tiny house in the woods|a house shaped like a mushroom}", "{ran|walked|skipped}", "hands"),
    "giant": ("in {a huge house on a hill|a valley far away}", "{walked|stomped|hurried}", "hands"),
    "princess": ("in {a tall castle|a big castle on a hill|a castle by the sea}", "{ran|walked|hurried}", "hands"),
    "prince": ("in {a tall castle|a big castle on a hill|a castle by the sea}", "{ran|walked|rode}", "hands"),
    "knight": ("in {a stone castle|a village near a castle}", "{ran|rode|walked}", "hands"),
    "wizard": ("in {a crooked tower|a tall tower in the woods}", "{walked|hurried|ran}", "hands"),
    "pirate": ("on {a wooden ship|an island in the sea}", "{ran|sailed|marched}", "hands"),
    "unicorn": ("in {a magic forest|a land of rainbows}", "{ran|galloped|trotted}", "feet"),
}
KID_HOME = ["in {a small house|a little house|a big house} {near the park|by the sea|at the edge of a village|on a quiet street|next to a farm|near the woods}",
            "in {a small town|a little village|a big city}"]
KID_GO = "{ran|walked|hurried|skipped}"
ADJ = "little little little small young kind curious happy brave gentle clever cheerful playful shy tiny friendly".split()
COLORS = "red blue green yellow orange purple pink white golden silver brown".split()

DAY = ["one {sunny|bright|warm|fine|cool|windy|lovely|quiet|beautiful} {day|morning|afternoon}", "one day", "one day", "one morning",
       "one {spring|summer|autumn} {day|morning|afternoon}", "early one morning", "one Saturday{| morning}"]
AIR = ["The sun was {bright|warm|shining} and the {birds were singing|sky was blue}.", "The sky was {blue|clear} and {a soft wind was blowing|there were no clouds}.",
       "The {grass|air} was {fresh|cool} and {sweet|soft}.", "It was a {perfect|lovely|good} day to {play|be outside}.",
       "{White|Fluffy} clouds {moved|floated} slowly across the sky.", "{Bees|Butterflies} were flying from flower to flower.",
       "The leaves {danced|whispered} in the wind.", "The air smelled like {flowers|fresh bread|grass after the rain}.",
       "Everything was {quiet|calm} and {still|peaceful}.", ""]
FEEL_GOOD = ["<H> felt {very happy|warm inside|proud|so happy|full of joy|glad}.", "<H> {smiled|smiled a big smile|smiled from ear to ear}.",
             "<H.s> heart felt {light|warm|full}.", "<H> was {so|very} {happy|proud|glad}."]
FEEL_BAD = ["<H> felt {very sad|sad and alone|like crying|bad|a little sad}.", "<H> {began|started} to cry.", "A {big|little} tear {ran|rolled} down <H.his> {face|cheek}.",
            "<H.s> heart felt heavy.", "<H> did not know what to do."]
END = ["And they {all |}lived happily ever after.", "The end.", "And <H> was {happy|very happy}.", "It was the best day ever.",
       "That night, <H> {fell asleep|went to sleep} with a {smile|big smile} on <H.his> face.", "<H> never forgot that day.", "", "", "", ""]

HELPERS = [("owl", "wise old", "wise"), ("squirrel", "busy", "answer"), ("turtle", "slow old", "wise"), ("bee", "busy", "answer"),
           ("frog", "green", "answer"), ("crow", "clever", "answer"), ("cow", "gentle", "kind"), ("duck", "friendly", "answer"),
           ("snail", "tiny", "wise"), ("goat", "gray", "answer"), ("rabbit", "quick", "answer"), ("mole", "sleepy", "answer"),
           ("robin", "small", "answer"), ("horse", "tall", "kind"), ("hedgehog", "shy", "kind"), ("cat", "lazy", "answer"), ("goose", "noisy", "answer"),
           ("ant", "tiny", "answer"), ("deer", "quiet", "kind"), ("butterfly", "yellow", "answer"), ("beaver", "busy", "answer")]


def make_kid(s, gender=None, avoid=()):
    g = gender or s.pick("m", "f")
    pool = BOYS[:24] if g == "m" else GIRLS[:24]
    if s.chance(0.6):
        pool = BOYS if g == "m" else GIRLS
    name = s.pick([n for n in pool if n not in avoid])
    adj = s.pick("little", "little", "little", "young", "small", "kind", "")
    return Char("boy" if g == "m" else "girl", g, name, adj, True, home=s.pick(KID_HOME), go=KID_GO, paws="hands")


def make_animal(s, kind=None, named=None, avoid=(), avoid_kind=()):
    kind = kind or s.pick([k for k in ANIMALS if k not in avoid_kind])
    g = s.pick("m", "f")
    name = s.pick([n for n in (PET_M if g == "m" else PET_F) if n not in avoid])
    if named is None:
        named = s.chance(0.8)
    home, go, paws = ANIMALS[kind]
    return Char(kind, g, name if named else None, s.pick(ADJ), False, home=home, go=go, paws=paws)


def make_fantasy(s, avoid=()):
    kind = s.pick(list(FANTASY))
    g = {"princess": "f", "prince": "m"}.get(kind) or s.pick("m", "f")
    pool = (PET_M if g == "m" else PET_F) if kind in ("dragon", "robot", "unicorn", "fairy", "elf") else (BOYS if g == "m" else GIRLS)
    home, go, paws = FANTASY[kind]
    return Char(kind, g, s.pick([n for n in pool if n not in avoid]) if s.chance(0.85) else None, s.pick(ADJ), False, home=home, go=go, paws=paws)


def hero(s, kids=0.45, animals=0.42):
    x = s.r.random()
    h = make_kid(s) if x < kids else make_animal(s) if x < kids + animals else make_fantasy(s)
    s.put("H", h)
    return h


def friend(s, key="F", kids=0.5, like=None):
    """A second character, of another name and kind than those already there."""
    names = [c.name for c in s.c.values()]
    kinds = [c.kind for c in s.c.values()]
    like = like or s.c.get("H")
    if like is not None and like.human:
        f = make_kid(s, avoid=names) if s.chance(0.75) else make_animal(s, s.pick("dog", "cat", "puppy", "kitten", "rabbit"), True, avoid=names)
    else:
        f = make_animal(s, None, True, avoid=names, avoid_kind=kinds)
    return s.put(key, f)


def parent(s, key="P", child="H"):
    h = s.c[child]
    g = s.pick("m", "f", "f")
    if h.human or h.kind in ("princess", "prince", "elf", "fairy"):
        word = s.pick(("mom", "mom", "mother", "grandma", "mommy") if g == "f" else ("dad", "dad", "father", "grandpa", "daddy"))
        if h.kind in ("princess", "prince"):
            word = "mother" if g == "f" else "father"
    else:
        word = s.pick("mother", "mom", "grandma") if g == "f" else s.pick("father", "dad", "grandpa")
    call = {"mother": "Mom", "father": "Dad"}.get(word, word.capitalize())
    return s.put(key, Char(word, g, None, "", True, fixed=PRON[h.gender]["his"] + " " + word, call=call, paws="hands", go="walked"))


def helper(s, key):
    kinds = [c.kind for c in s.c.values()]
    kind, adj, tone = s.pick([h for h in HELPERS if h[0] not in kinds])
    c = Char(kind, s.pick("m", "f"), None, adj, False, tone=tone, go="went", paws="feet", home="near by")
    s.v["tone_" + key] = tone
    return s.put(key, c)


def opening(s, *traits):
    """Introduce H; each trait is a template for what H is or likes, with H as its subject."""
    h = s.c["H"]
    h.shown = True
    s.v["trait"] = s.pick(traits) if traits else "loved to play outside"
    s.v["home"] = h.attr["home"]
    if h.name and s.chance(0.14):         # a beginning in the middle of a day
        s.v["day"] = ["{later that day|that afternoon|that day}", "the next {day|morning}", "{soon after|a little later}", "a few days later"]
        s.v["begin"] = ["One {|sunny |warm |rainy |cold }{day|morning}", "One day", "One day", "Early one morning"]
        s("<begin>, <H.a> {woke up early|looked out of the window|sat under a tree|was sitting in the sun|went for a walk|was playing outside|was walking {home|down the road}}. <H> <trait>.",
          "<begin>, <H.a> {went to the park|went to the woods|went to the river|went outside to play|went to visit a friend}. <H.he> {stayed for an hour and came home happy|had a good time}. <H> <trait>.",
          "It was a {sunny|quiet|beautiful|rainy} {day|morning}. <H.a> {was at home|sat near the door|was {playing|singing} a song to pass the time}. <H> <trait>.".replace("{playing|singing}", "singing"),
          "<begin>, there was <H.a>. <H.he> <trait>.",
          ("<H.n> was a {happy|good|clever|quiet} <H.kind>. <H.he> <trait>."))
        return
    if h.name:
        s("Once upon a time, there was <H.a>. <H.he> lived <home>. <H> <trait>.",
          "Once upon a time, there was <H.a>. <H> <trait>.",
          "Once upon a time, there was <H.a>. <H> <trait>.",
          "Once upon a time, there was <H.ak> who <trait>. <H.his> name was <H.n>.",
          "Once upon a time, there was <H.ak> who lived <home>. <H.his> name was <H.n>, and <H.he> <trait>.",
          "Once upon a time, <home>, there lived <H.a>. <H.he> <trait>.",
          "Once there was <H.a> who <trait>. <H> lived <home>.",
          "There once was <H.a>. <H.he> lived <home> and <trait>.",
          "Long ago, {in a land far away|far, far away}, there lived <H.a>. <H> <trait>." if not h.human else "Once, there was <H.a> who lived <home>. <H> <trait>.",
          "<H.n> was <H.ak> who lived <home>. <H.he> <trait>.",
          "<H.n> was <H.ak>. <H.he> <trait>.",
          ("<H.n> <trait>. <H.he> was <H.ak> who lived <home>." if h.human else "<H.n> the <H.kind> <trait>. <H.he> lived <home>."),
          "In a {small|quiet|little|far away} {village|town|land|valley} {by the sea|near the mountains|full of trees|by a river}, there lived <H.a>. <H.he> <trait>.",
          "Once upon a time, in a {small|quiet|far away} {village|town|land}, there was <H.a>. <H.he> <trait>.",
          "There was <H.a> who <trait>. <H.he> lived <home>.",
          "In {a quiet place|a place not far from here|a small and happy place}, there lived <H.a>. <H.he> <trait>.")
    else:
        s("Once upon a time, there was <H.ak> who lived <home>. The <H.kind> <trait>.",
          "Once upon a time, there was <H.ak> who <trait>. <H.he> lived <home>.",
          "Once there was <H.ak> who <trait>.",
          "Once upon a time, <home>, there lived <H.ak>. The <H.kind> <trait>.",
          "There was once <H.ak>. <H.he> lived <home> and <trait>.",
          "Long ago, <H.ak> lived <home>. The <H.kind> <trait>.")


def closing(s, *morals):
    s.maybe(0.93, *morals)
    s(*END)


# ---------------------------------------------------------------- things

LOVED = [("ball", "bounce"), ("teddy bear", "hug"), ("kite", "fly"), ("scarf", "wear"), ("hat", "wear"), ("toy boat", "sail"), ("drum", "play"),
         ("toy train", "push"), ("picture book", "read"), ("blanket", "hold"), ("bell", "ring"), ("whistle", "blow"), ("toy car", "push"),
         ("necklace", "wear"), ("music box", "play"), ("bucket", "carry"), ("lantern", "carry"), ("flute", "play"), ("doll", "hug"), ("ribbon", "wear"),
         ("marble", "roll"), ("balloon", "hold"), ("cup", "use"), ("crown", "wear"), ("button", "hold"), ("coin", "hold"), ("toy robot", "play with"),
         ("umbrella", "carry"), ("feather", "hold"), ("stone", "hold"), ("jacket", "wear"), ("dress", "wear"), ("toy plane", "fly"), ("puppet", "play with"), ("bracelet", "wear"), ("backpack", "carry"),
         ("paint brush", "use"), ("spoon", "use"), ("pen", "use"), ("toy truck", "push"), ("bicycle bell", "ring"), ("pillow", "hug"), ("locket", "wear"), ("compass", "hold"), ("yo-yo", "play with"), ("toy dinosaur", "play with"),
         ("mitten", "wear"), ("shell", "hold"), ("map", "read"), ("wooden horse", "ride"), ("snow globe", "shake"), ("violin", "play"), ("toy helicopter", "fly"), ("jar", "carry"), ("ring", "wear"), ("glove", "wear"), ("card", "read")]
FOODS = ["apple pie", "honey cake", "carrot soup", "berry jam", "banana bread", "chocolate cake", "pumpkin soup", "cherry pie", "cookies", "pancakes",
         "strawberry cake", "bread", "corn soup", "muffins", "apple cake"]
FRUITS = ["apples", "berries", "pears", "cherries", "plums", "nuts", "carrots", "strawberries", "oranges", "blueberries", "grapes", "peaches"]
HIDE = [("under {a pile of leaves|some dry leaves}", "there were many leaves on the ground"), ("behind {the old barn|a big rock|the garden wall}", "something bright was there"),
        ("in the branches of {a tall tree|an apple tree}", "something moved in the wind"), ("under {the bridge|the old wooden bridge}", "the water was low"),
        ("in {a bush full of berries|a thick green bush}", "the leaves were shaking"), ("inside a hollow log", "it was dark and dusty inside"),
        ("beside {the pond|the stream}", "the grass was tall and wet"), ("in {a bird's nest|an empty nest}", "a few soft feathers were falling")]


# ---------------------------------------------------------------- plots

def plot_lost(s):
    """A loved thing is lost; others are asked; it is found."""
    hero(s)
    thing, verb = s.pick(LOVED)
    s.v.update(obj=thing, verb=verb, col=s.pick(COLORS + ["shiny", "soft", "tiny", "pretty", "special"]), giver=s.pick("grandma", "grandpa", "aunt", "uncle", "best friend", "mother"))
    opening(s, "had a <col> <obj>", "loved a <col> <obj> more than anything", "had a <col> <obj> that {was very special|<H.he> took everywhere}",
            "owned a <col> <obj> that came from <H.his> <giver>")
    s("<H> liked to <verb> the <obj> every {day|morning|afternoon}.", "<H.he> took the <obj> everywhere <H.he> went.", "The <col> <obj> was <H.his> favorite thing in the {whole |}world.")
    s.p("<day>, <H> woke up and could not find the <obj>.", "<day>, <H> {looked|reached} for the <obj>, but it was {gone|not there}.",
        "But <day>, the <col> <obj> was {gone|missing|nowhere to be seen}.", "<day>, after a long {walk|game}, <H> saw that the <obj> was {gone|missing}.")
    s("[H/cry:{Oh no|Oh dear|Oh no, oh no}! Where is my <obj>?]", "[H/sad:I have lost my <obj>.]", "<H> felt {very sad|worried}. [H/ask:Where can my <obj> be?]")
    s.maybe(0.7, "<H.he> looked under the bed. <H.he> looked behind the door. It was not there." if s.c["H"].human else "<H.he> looked to the left. <H.he> looked to the right. It was not there.",
            "<H> looked here and there, but <H.he> could not find it.", "<H.he> looked {high and low|everywhere}.")
    n = s.pick(1, 2, 2, 3)
    s.v["where"], s.v["sign"] = s.pick(HIDE)
    for i in range(n):
        k = "AB C".replace(" ", "")[i]
        helper(s, k)
        t = s.v["tone_" + k]
        first, lastone = i == 0, i == n - 1
        if first:
            s.p("<H> <H.go> {outside|down the path|along the road} and met <%s.ak>." % k, "So <H> went to {look for it|search}. {Soon|On the way}, <H.he> saw <%s.ak>." % k,
                "<H> decided to ask for help. First, <H.he> {met|found} <%s.ak>." % k)
        else:
            s.p("{Next|Then|After that}, <H> {met|saw|came to} <%s.ak>." % k, "A little later, <H> {met|saw} <%s.ak>." % k)
        s("[H/ask:{Hello|Excuse me|Good morning}, <%s.kind>. Have you seen my <col> <obj>?]" % k, "[H/ask:{Please|Hello}, can you help me? I {lost|am looking for} my <obj>.]")
        if not lastone:
            s("[%s/%s:{No, I am sorry|I have not seen it|No, not today}. {But I hope you find it|Try asking someone else|Maybe someone else knows}.]" % (k, t),
              "[%s/%s:I have not seen a <col> <obj>. {I am sorry|Keep looking|Do not give up}.]" % (k, t))
            s("<H> {thanked|said thank you to} the <%s.kind> and {went on|kept walking|walked on}." % k, "")
        else:
            s("[%s/%s:{Yes|I think so|I may have}! I saw {something <col>|something like that} <where>. {Come with me|Follow me|Let us look together}.]" % (k, t),
              "[%s/%s:{Let us think|Think back}. Where did you {last have it|play yesterday}?] <H> {thought hard|closed <H.his> eyes and thought}. [H/happy:I {remember|know}! I was <where>!]" % (k, t))
            s.v["K"] = s.c[k].kind
    s.p("They {went|walked|hurried} there together, and <sign>.", "Together they {went|walked} to look. When they came near, <sign>.")
    s("There, <where>, was the <col> <obj>!", "And there it was! The <col> <obj> was <where>.", "<H> looked <where>, and there was the <obj>!")
    s("[H/happy:{I found it|My <obj>|Here it is}! {Thank you|Thank you so much}!]", "<H> {picked it up|held it close} and {laughed|smiled}. [H/happy:Thank you for helping me.]")
    s("They {played|laughed|danced} together {all afternoon|until the sun went down}.", "<H> and the <K> became {good|best} friends.", "<H> shared <H.his> {lunch|snack} with the <K> to say thank you.", "")
    s.p("From that day on, <H> {always put|always kept} the <obj> in a safe place.", "After that, <H> took {good|better} care of the <obj>.", "<H> learned to {take care of <H.his> things|ask for help when <H.he> needed it}.")
    closing(s, "<H> knew that {good friends|kind friends} help each other.", "<H> was glad to have the <obj> back, and even more glad to have a new friend.", "")


SKILLS = [("fly", "fly high like the other birds", ["bird", "owl"], "jumped from a low branch and flapped <H.his> wings", "fell into the soft grass", "flap harder and look up", "flew {over the trees|high in the sky}"),
          ("swim", "swim in the {lake|pond|river}", None, "jumped into the cold water", "splashed and got water in <H.his> nose", "kick slowly and breathe", "swam all the way {across|to the other side}"),
          ("ride a bike", "ride a bike", "kid", "sat on the bike and pushed with one foot", "fell on the grass", "look ahead and keep moving", "rode {all the way down the street|around the park}"),
          ("paint", "paint a picture of {the sea|a rainbow|a tree}", "any", "put some paint on the paper", "made a big mess", "use a little paint and go slowly", "painted {a beautiful picture|the best picture of all}"),
          ("sing", "sing a song for {everyone|<H.his> friends}", "any", "opened <H.his> mouth to sing", "made a funny, squeaky sound", "take a deep breath and sing from the heart", "sang {a sweet song|the whole song}"),
          ("dance", "dance in the big show", "any", "began to spin", "bumped into a {chair|tree} and fell down", "listen to the music and count to three", "danced {around and around|without falling once}"),
          ("climb", "climb {the tall tree|the big hill}", "any", "started to climb", "slipped back down", "take small steps and hold on tight", "climbed {all the way to the top|to the very top}"),
          ("skate", "skate on the ice", "any", "stepped onto the ice", "slid and sat down hard", "bend low and push gently", "skated {in a big circle|across the ice}"),
          ("bake bread", "bake {bread|a cake} all alone", "any", "mixed the flour and the water", "made a big sticky mess", "measure first and stir slowly", "baked {a warm, golden loaf|something that smelled wonderful}"),
          ("read", "read a big book", "any", "opened the book", "mixed up all the words", "say one sound at a time", "read {the whole page|a story from start to end}"),
          ("whistle", "whistle a tune", "any", "blew and blew", "made only a silly puff of air", "make a small round mouth and blow softly", "whistled {a merry tune|loud and clear}"),
          ("jump", "jump over the {stream|log}", "any", "ran fast and jumped", "landed in the mud", "run faster and jump at the very edge", "jumped {right over it|far over it}"),
          ("juggle", "juggle three {apples|balls}", "any", "threw them up in the air", "dropped them all", "start with just one", "juggled {all three|them all}"),
          ("tie a knot", "tie {a bow|a strong knot}", "any", "pulled the string this way and that", "got it all tangled", "make a loop first and then go around", "tied {a perfect bow|it all alone}"),
          ("play the {drum|flute|violin}", "play music in the {town|forest} band", "any", "tried to play the first song", "made a terrible noise", "play slowly and listen", "played {the whole song|a lovely tune}")]


def plot_learn(s):
    """Someone cannot do a thing, fails, practises with help, succeeds."""
    hero(s)
    h = s.c["H"]
    ok = [k for k in SKILLS if k[2] == "any" or (k[2] == "kid" and h.human) or (k[2] is None and h.kind not in ("cat", "kitten", "mole", "fairy", "robot", "fish")) or (isinstance(k[2], list) and h.kind in k[2])]
    k = s.pick(ok)
    skill = s.x(k[0])
    s.v.update(skill=skill, dream=s.x(k[1]), tryit=k[3], fail=k[4], tip=k[5], win=k[6])
    opening(s, "wanted to learn how to <skill>", "dreamed of one thing. <H.he> wanted to <dream>", "had a big dream", "was always trying new things")
    s("More than anything, <H> wanted to <dream>.", "<H> wished that <H.he> could <dream>.", "Every day, <H> watched others <skill> and wished <H.he> could do it too.")
    s.p("<day>, <H> decided to try. <H.he> <tryit>, but <H.he> <fail>.", "<day>, <H> said, \"Today I will <skill>!\" <H.he> <tryit>. Then <H.he> <fail>.",
        "<day>, <H> tried to <skill>. <H.he> <tryit> and <fail>.")
    s.maybe(0.8, "{Some of the others|Two {bigger|older} {children|ones}} laughed at <H.him>." if h.human else "{Some of the others|A crow in a tree} laughed at <H.him>.",
            "<H.he> tried again, but it {was still too hard|did not work}.", "<H.he> tried again and again, but <H.he> could not do it.")
    s("[H/sad:I {can't do it|will never learn|am not good at this}.]", "[H/sad:It is too hard {for me|}.]", *FEEL_BAD[:2])
    if s.chance(0.5):
        parent(s, "T")
        s.p("<T> {saw <H.him>|heard <H.him>} and sat down {beside <H.him>|next to <H.him>}.", "<T> came to {see what was wrong|help}.")
    else:
        c = helper(s, "T")
        s.p("Just then, <T.ak> came by. [T/ask:Why are you so sad?] <H> told the <T.kind> everything.", "<T.ak> had been watching. The <T.kind> came closer.")
    s("[T/kind:{Do not give up|Don't worry|It is all right}, <H.voc>. {Everyone falls at first|No one can do it the first time|Learning takes time}. You {must|need to|just have to} <tip>.]",
      "[T/kind:I could not <skill> at first, either. {The trick is to|You must} <tip>. {Try again|Let us try together}.]")
    s("[H/ask:{Do you really think I can|Will you help me}?] [T/kind:{Of course|Yes, I do|I know you can}.]", "<H> {dried <H.his> eyes|nodded} and {stood up|got ready}.", "")
    s.p("So <H> {practiced|tried} {every day|every morning|day after day}. {Sometimes <H.he> <fail>, but|It was not easy, but} <H.he> did not {stop|give up}.",
        "The next day, <H> tried again. The day after that, <H.he> tried once more. {Little by little|Slowly}, <H.he> got better.",
        "<H> took a deep breath and remembered to <tip>. {The first time|At first}, it was {still |}hard. {The second time|Then} it was a little better.")
    s.p("{At last|Then, one day|Finally}, <H> <win>! {Everyone|All the others} {clapped|cheered}.", "And then it happened. <H> <win>!", "One week later, <H> <win>. <H.he> could hardly believe it!")
    s("[H/happy:{I did it|Look at me|I can <skill>}!]", "[H/happy:Look! I can <skill>!] [T/happy:{I knew you could|I am so proud of you|Well done}!]")
    s(*FEEL_GOOD)
    s.p()
    closing(s, "<H> learned that {if you keep trying, you can do great things|practice makes hard things easy|it is okay to fail, as long as you try again}.",
            "From that day on, when something was hard, <H> {did not give up|remembered to keep trying|just tried again}.",
            "Later, <H> taught {a smaller friend|other little ones} how to <skill>, too.")


TROUBLE = [("bird", "small", "stuck in a {thorny|prickly} bush", "lifted the branches one by one", "a wing that hurt"),
           ("bee", "tiny", "floating in a puddle", "put a leaf in the water so that the bee could climb out", "wet wings"),
           ("kitten", "gray", "high up in a tree", "put a long branch against the tree like a ladder", "tired legs"),
           ("lamb", "white", "stuck in the mud", "found a long rope and pulled and pulled", "cold feet"),
           ("turtle", "small", "upside down on <V.his> back", "pushed with all <H.his> might until the turtle turned over", "a dizzy head"),
           ("duckling", "yellow", "lost and far from {the pond|its mother}", "carried the duckling gently back to the pond", "sore feet"),
           ("butterfly", "blue", "caught in a spider's web", "carefully broke the sticky threads", "a dusty wing"),
           ("puppy", "brown", "stuck in a deep hole", "made steps in the side of the hole with sticks and stones", "muddy ears"),
           ("squirrel", "little", "trapped under a fallen branch", "lifted the heavy branch", "a sore tail"),
           ("fish", "silver", "stuck in a {small|drying} pool {near the river|on the beach}", "carried the fish to deep water in a {bucket|big shell}", "dry fins"),
           ("hedgehog", "small", "caught in an old net", "untied the knots one by one", "a sore leg"),
           ("dragon", "baby", "crying behind a rock", "gave it some warm soup and a soft blanket", "a cold nose"),
           ("fawn", "spotted", "caught in a fence", "pulled the wire apart", "a scratched leg"),
           ("mouse", "tiny", "trapped inside a glass jar", "rolled the jar and twisted the lid off", "a scared little heart")]


def plot_rescue(s):
    """H finds a creature in trouble, helps; later the kindness comes back."""
    h = hero(s)
    k = s.pick([t for t in TROUBLE if t[0] != h.kind])
    if s.chance(0.6) and not (h.human):
        friend(s, "F")
    elif h.human and s.chance(0.4):
        friend(s, "F")
    g = s.pick("m", "f")
    s.put("V", Char(k[0], g, None, k[1], False, paws="feet", go="went", home=""))
    s.v.update(stuck=k[2], fix=k[3], hurt=k[4], spot=s.pick("{by|near} the river", "{in|at the edge of} the forest", "on the way home", "near the old bridge", "in the tall grass", "on a quiet path", "behind a hill"))
    opening(s, "had a kind heart", "loved to go for walks", "liked to help others", "loved all {animals|living things}", "was always {kind|gentle}", "was small, but <H.he> had a big heart")
    s.p("<day>, <H> was {walking|playing|looking for {flowers|berries}} <spot>. <air>", "<day>, <H> went for a walk <spot>. <air>")
    s("{Suddenly|Then|All at once}, <H.he> heard a {small|tiny|sad} {voice|sound|cry}.", "{Suddenly|Then}, <H.he> heard someone crying.", "<H.he> stopped. What was that sound?")
    s("\"{Help|Help me|Please help}! {I am stuck|Somebody help me}!\" {someone called|\x01said the voice|the voice cried}." if k[0] not in ("duckling", "dragon") else "\"{Please help me|I am all alone|I want to go home},\" {someone said|said the voice}.")
    s("<H> looked around and saw <V.ak>. <V.he> was <stuck>.", "It was <V.ak>, and <V.he> was <stuck>!")
    if "F" in s.c:
        s.p("Just then, <H.s> friend <F.n> came along. [F/scared:{We should go home|It is too hard|Leave it. It is not our problem}.]", "<F.n>, {a friend|<H.s> best friend}, was there too. [F/ask:{What can we do|Are you sure we can help}?]")
        s("[H/answer:{No|We can not leave now}. <V.he> needs {us|our help}.]", "[H/answer:We have to try. {I would be scared, too|If I were stuck, I would want help}.]")
    else:
        s.p("<H> was {a little|} scared, but <H.he> {wanted to help|did not run away|knew what to do}.", "<H> {thought and thought|thought for a moment}. Then <H.he> had an idea.", "[H/kind:{Do not be afraid|Don't worry|Stay calm}. I will help you.]")
    s("{Slowly and carefully|Very gently|Very carefully}, <H> <fix>.", "So <H> <fix>.", "<H> {worked|tried} and did not stop. <H.he> <fix>.")
    s("At last, the <V.kind> was {free|safe}!", "Soon the <V.kind> was safe {again|and sound}.", "It took a long time, but it worked!")
    s.maybe(0.6, "The <V.kind> had <hurt>, so <H> {took care of <V.him>|stayed with <V.him>} until <V.he> felt better.", "<H> gave <V.him> {some water|something to eat} and a {soft|warm} place to rest.")
    s("[V/happy:{Thank you|Thank you so much|Oh, thank you}! You {saved me|are very kind|are so brave}.]", "[V/happy:You helped me. I will never forget it.]")
    end = s.pick("friend", "return", "return", "family")
    if end == "friend":
        s.p("After that, <H> and the <V.kind> {played together every day|were always together|became the best of friends}.", "From then on, the <V.kind> came to {visit|see} <H> {every morning|every day}.")
    elif end == "family":
        s.p("Soon, the <V.s> family came. They were so happy to see {<V.him>|their little one} again. They {gave <H> a {shiny|smooth} stone|sang a song for <H>|hugged <H>}.", "The <V.kind> ran to {<V.his> mother|<V.his> family}. [V/happy:This is <H.n>. <H.he> saved me!]" if h.name else "The <V.kind> ran to <V.his> mother, and the two of them {smiled|waved} at <H>.")
    else:
        s.v["storm"] = s.pick("lost in a thick fog", "lost in the dark woods", "caught in a big storm and could not find the way home", "looking for {food|wood} in the snow and could not find the way back")
        s.p("{Many|A few|Some} days later, <H> was <storm>. <H.he> was cold and {tired|afraid}.", "Then, one evening, <H> was <storm>. <H.he> {called|shouted}, but no one {answered|came}.")
        s("{Suddenly|Just then}, a {small|familiar} voice {called|said}, \"{Follow me|I am here|I will help you}!\" It was the <V.kind>{!| from before!}", "Then <H> saw {someone|a friend} in the dark. It was the <V.kind>! [V/happy:You helped me, and now I will help you.]")
        s("The <V.kind> {knew the way|showed <H.him> the way} and {soon|before long} <H> was {home|safe at home}.", "Together they {found the way|went} home, step by step.")
        s("[H/happy:Thank you, my friend.]", "<H> hugged the <V.kind> {tight|and smiled}.", "")
    s.p()
    closing(s, "<H> learned that {even a small act of kindness can make a big difference|when you are kind, kindness comes back to you|helping others feels good}.",
            "{It is good to be kind|A kind heart is the best gift}, even to the {smallest|littlest} {friend|creature}.", "And <H> {always|always stopped and} helped anyone who was in trouble.")


TOYS = ["red ball", "swing", "big blue truck", "toy train", "box of crayons", "kite", "yellow boat", "drum", "scooter", "sandbox shovel", "set of blocks", "jump rope", "wagon", "puzzle", "toy castle", "new sled", "rocking horse", "big bubble wand"]


def plot_share(s):
    """Two want the same thing; they quarrel; they make up."""
    h = hero(s, 0.7, 0.28)
    friend(s, "F")
    toy = s.pick(TOYS)
    s.v.update(toy=toy, short=toy.split()[-1] if toy not in ("box of crayons", "set of blocks", "jump rope", "big bubble wand", "rocking horse") else toy,
               place=s.pick("at the park", "in the garden", "in the yard", "by the pond", "on the hill", "near the big tree", "at the playground" if h.human else "in the meadow"))
    opening(s, "had a {best |good }friend named <F.n>", "loved to play with <H.his> friend <F.n>")
    s("They {played together every day|did everything together|liked to run and laugh together}.", "They were {very good|the best of} friends.", "")
    s.p("<day>, <H> and <F> were playing <place>. {They|There they} found a <toy>.", "<day>, <H> got a {new |}<toy>. <F> {came over|came} to play <place>." if not toy.startswith(("big", "new", "set", "box")) else "<day>, they saw a <toy> <place>.",
        "<day>, the two friends saw a <toy> <place>. <air>")
    s("Both of them wanted {it|to play with it first}.", "<H> wanted to play with it, and so did <F>.")
    s("[H/angry:{It is mine|I want it|I was here first|It is my turn}!] [F/angry:{No, it's mine|No, I saw it first|That is not fair|You always go first}!]", "[F/ask:Can I {have a turn|play with it, too|try it}?] [H/angry:{No|No, go away|No! It is mine}!]")
    s("They pulled and pulled {until|and then} the <short> {broke|fell|fell into the mud}.", "<F> {started to cry|felt hurt} and {went home|walked away|sat down alone}.", "They both {shouted|got very angry} and turned away from each other.")
    s.p("<H> {played alone|sat alone with the <short>}, but it was not {fun|the same}.", "Soon, <H> {felt bad|was lonely|felt sad}. Playing alone was {no fun|boring}.", "{At first|For a while}, <H> was {still |}angry. But then <H.he> {felt sorry|missed <F>}.")
    if s.chance(0.5):
        parent(s)
        s("<P> asked, \"{What is wrong|Why are you so sad}, <H.voc>?\" <H> told <P.him> what had happened.", "<H> went to <P> and told <P.him> everything.")
        s("[P/kind:{A toy is more fun when you share it|Friends are more important than toys|Sharing makes everyone happy}. {What can you do to make it right|What do you think you should do}?]", "[P/kind:{Would you be happy if <F> did that to you|How do you think <F> feels}?]")
        s("<H> {thought about it|thought for a while}. [H/answer:I {should|want to} say sorry.]", "<H> {knew|understood}. [H/answer:You are right.]")
    else:
        s("[H/think:I {was not nice|was mean|was not a good friend}. I {want|have} to say sorry.]", "<H> thought about {all the good times with <F>|what a good friend <F> was}.")
    s.p("<H> {went|<H.go>} to <F>. [H/sorry:I am sorry, <F.voc>. {I should have shared|I was mean|I want to be your friend}.]", "<H> found <F> {under a tree|sitting alone}. [H/sorry:I am sorry. {You can go first.|Do you want to play with me?}]")
    s("[F/happy:{It's okay|I forgive you|That is all right}. {I am sorry, too|Let's take turns|Let's play together}.]", "<F> smiled. [F/answer:I'm sorry, too. {Let's share|Let's take turns}.]")
    s("They took turns. First <F> played, and then <H> played.", "They {fixed|cleaned} the <short> and {played|laughed} together {all day|until it was time to go home}.", "They made up a new game {for two|that they could play together}, and it was {even better|so much fun}.")
    s.p()
    closing(s, "<H> and <F> learned that {sharing is better than fighting|it is more fun to share|a good friend is better than any toy}.", "From that day on, they always {shared|took turns}.", "Sharing made {everything|the game} twice as much fun.")


DANGERS = [("go near the {river|deep river}", "saw a {shiny|pretty} {stone|fish} in the water and {leaned|reached} too far", "fell into the cold water with a splash", "pulled <H.him> out with a long {branch|rope}", "wet and cold"),
           ("go into the dark {woods|forest}", "followed a {blue|pretty} butterfly between the trees", "could not find the way back", "heard <H.him> crying and led <H.him> home", "cold and tired"),
           ("climb the {old|tall} tree", "climbed higher and higher to see a nest", "looked down and was too scared to move", "climbed up and helped <H.him> down, step by step", "shaky and pale"),
           ("touch the {hot stove|hot pot}", "wanted to {taste|smell} the soup and {reached|put out a hand} for the pot", "burned a finger", "put <H.his> finger in cold water", "hurt and sorry"),
           ("eat the {red berries|strange mushrooms} in the woods", "was hungry, and they looked so {sweet|good}", "got a terrible tummy ache", "gave <H.him> warm tea and stayed with <H.him>", "sick and weak"),
           ("open the {old wooden box|little green door}", "wanted to take just one little peek", "let out {a hundred bees|a cloud of black dust|a big, noisy bird}", "chased everything back in and closed it tight", "scared and sorry"),
           ("walk on the thin ice", "thought the ice looked strong", "heard a loud crack and the ice broke", "crawled over the ice and pulled <H.him> to the shore", "wet and shaking"),
           ("go too far {from home|away}", "saw a {red|big} balloon and followed it {over the hill|down the road}", "looked around and did not know where <H.he> was", "found <H.him> {beside the road|under a tree} and took <H.him> home", "lost and lonely"),
           ("play with the {sharp scissors|sharp knife}", "wanted to make a paper star", "cut a hole in {the new curtain|<H.his> best shirt} and hurt a finger", "washed the finger and put a bandage on it", "hurt and sorry"),
           ("go out in the storm", "wanted to see the lightning", "was blown over by the wind", "ran out with a lantern and carried <H.him> inside", "wet and muddy")]


def plot_warning(s):
    """A warning is ignored; there is trouble; a rescue; a lesson."""
    h = hero(s, 0.55, 0.45)
    parent(s)
    k = s.pick([d for d in DANGERS if h.human or d[0].split()[0] not in ("touch", "play")])
    s.v.update(dont=s.x(k[0]), tempt=k[1], bad=k[2], save=k[3], state=k[4])
    opening(s, "was very curious", "did not like to listen", "always wanted to see new things", "loved adventures", "was {brave|clever}, but {sometimes |}<H.he> did not listen")
    s("<P> always said, \"{Do not|Never|You must not} <dont>{. It is not safe|. It is dangerous|, <H.voc>}.\"", "[P/say:You can play {outside|anywhere}, but {please |}do not <dont>.] [H/answer:{Yes|All right|Okay}, <P.voc>.]")
    s.p("<day>, <H> was {playing alone|bored|all alone}. [H/think:{Just this once|I will be careful|Nothing bad will happen}.]", "<day>, <P> was {busy|taking a nap|working in the garden}. <H> forgot {the rule|about the rule}.", "But <day>, <H> did not {listen|do as <H.he> was told}.")
    s("<H.he> <tempt>.", "<H.he> looked around. Nobody was watching. <H.he> <tempt>.")
    s("{Suddenly|Then|Oh no! Then|But then}, <H.he> <bad>!", "{All at once|Before long}, <H.he> <bad>.")
    s("[H/cry:{Help|Help me|Oh no! Help me}!]", "<H> was {so scared|very afraid}. [H/cry:{Help|Somebody help}!]", "<H> began to cry. [H/sad:I should have listened.]")
    s.p("{Luckily|Just in time}, <P> heard {<H.him>|the noise} and came {running|quickly|as fast as <P.he> could}. <P.he> <save>.", "<P> had been looking for <H>. <P.he> <save>.")
    s("<H> was <state>, but <H.he> was safe.", "<P> {hugged <H.him> tight|wrapped <H.him> in a warm blanket}.")
    s("[H/sorry:I am {so |very |}sorry, <P.voc>. {I did not listen|I should have listened to you|I will listen next time}.]", "[H/sorry:{I'm sorry|I am sorry}. I will {never do that again|be more careful}.]")
    s("[P/kind:I {am just glad you are safe|was so worried about you|love you, and I want you to be safe}. {Rules keep us safe|Please listen next time|Promise me you will be careful}.]", "[P/kind:I forgive you. {But please remember the rule|Now let us go home and have some warm soup}.]")
    s("<H> {promised|nodded and promised}.", "")
    s.p()
    closing(s, "From that day on, <H> {always listened|listened to <P>|was more careful}.", "<H> learned that {rules are there to keep us safe|it is important to listen|it is better to be safe than sorry}.")


FEARS = [("the dark", "the light went out", "{a small lamp|a jar of fireflies|the moon in the window}", "the shadows were only {trees in the wind|<H.his> own coat on the chair|toys on the shelf}", "At night, <H.he> hid under the blanket"),
         ("thunder", "a storm came with loud thunder", "a funny song", "thunder was only {the clouds clapping|a big noise in the sky}", "When the sky got dark, <H.he> hid under the {bed|table}"),
         ("the water", "a toy {boat|duck} floated away on the pond", "a little step at a time", "the water was {soft and cool|warm and gentle}", "<H.he> never went close to the {pond|lake}"),
         ("the big dog next door", "the big dog's {ball|bone} rolled into the yard", "a kind word", "the dog was {gentle and soft|just lonely}", "When <H.he> heard it bark, <H.he> ran away"),
         ("high places", "a baby bird fell and needed to go back up to its nest", "one slow breath after another", "the world looked {beautiful|small and pretty} from up there", "<H.he> always stayed close to the ground"),
         ("new places", "it was time to go to {a new school|the big market}", "a small smooth stone in <H.his> pocket", "there were {kind faces|new friends} everywhere", "<H.he> liked to stay at home"),
         ("speaking to others", "the teacher asked everyone to tell a story", "a deep breath", "everyone {listened and smiled|liked the story}", "<H.he> was always very quiet"),
         ("spiders", "a small spider was sitting on the {window|door}", "a closer look", "the spider was {making a beautiful web|more scared than <H.he> was}", "<H.he> screamed when <H.he> saw one"),
         ("the old house on the hill", "a {ball|kite} flew over the fence of the old house", "a friend's hand", "only a kind old woman with {a cat|many books} lived there", "<H.he> always ran past it"),
         ("the wind", "the wind blew all night long", "a soft song", "the wind only wanted to {play|dance with the leaves}", "<H.he> thought the wind was a monster")]


def plot_fear(s):
    """A fear is met and becomes small."""
    h = hero(s, 0.6, 0.36)
    k = s.pick([f for f in FEARS if h.human or f[0] not in ("new places", "speaking to others", "the big dog next door")])
    s.v.update(fear=k[0], event=k[1], tool=k[2], truth=k[3], habit=k[4])
    parent(s) if s.chance(0.5) else friend(s, "P")
    opening(s, "was {afraid|scared} of <fear>", "was {brave|happy} most of the time, but <H.he> was afraid of <fear>", "had one secret. <H.he> was {very |}afraid of <fear>")
    s("<habit>.", "<habit>, and <H.his> heart {beat fast|went boom, boom, boom}.")
    s.p("One {night|evening}, <event>." if k[0] in ("the dark", "thunder", "the wind") else "<day>, <event>.")
    s("<H> {started to shake|was very scared|froze}. [H/scared:{I am scared|I can't do it|I don't like this}.]", "[H/scared:{Oh no|Oh dear}! What should I do?]")
    s("<P> {heard <H.him> and came|came} to sit with <H.him>." if s.c["P"].fixed else "<P.n>, <H.his> {best |good |}friend, {was there|stood beside <H.him>}.")
    s("[P/kind:{Everyone is scared sometimes|It is okay to be afraid|Being brave does not mean you are never scared}. {All you need is|Let us try|Maybe you just need} <tool>.]", "[P/kind:{Do you know what helps me|I used to be scared of <fear>, too. Do you know what helped me}? <tool>.]")
    s("[H/ask:{Will you stay with me|Are you sure|Does it really work}?] [P/kind:{Yes|Of course|I promise}.]", "<H> {thought about it|took a deep breath} and nodded.")
    s.p("Slowly, <H> {opened <H.his> eyes|took one step|looked up}. Then <H.he> {looked again|took another step|looked a little closer}.", "<H> {counted to three|held <P.s> hand} and {tried|looked}.")
    s("<H.he> saw that <truth>.", "And do you know what? <truth>!", "To <H.his> surprise, <truth>.")
    s("[H/happy:{It is not so scary|I am not afraid anymore|I did it|That was not so bad}!]", "<H> {laughed|began to laugh}. [H/happy:I was {scared of nothing|so silly}!]")
    s("[P/happy:{I am proud of you|See? You are very brave|You did it}!]", "")
    s.p("After that, <H> was not so afraid of <fear>.", "The next time, <H> {smiled|remembered <tool>} and was {brave|calm}.")
    closing(s, "<H> learned that {being brave means trying even when you are scared|things are less scary when you look at them closely|friends and family can help us be brave}.", "Now <H.he> knew that <H.he> was braver than <H.he> thought." if h.gender != "n" else "")


def plot_newfriend(s):
    """Someone lonely meets someone different, and they find something to share."""
    h = hero(s, 0.4, 0.48)
    names = [h.name]
    f = make_animal(s, None, True, avoid=names, avoid_kind=[h.kind]) if (not h.human or s.chance(0.5)) else make_kid(s, avoid=names)
    s.put("F", f)
    s.v.update(can=s.pick("run very fast", "climb tall trees", "sing sweet songs", "dig deep holes", "tell funny stories", "find the best berries", "jump very high"),
               can2=s.pick("make beautiful things", "see far away", "find the way in the dark", "carry heavy things", "swim well", "dance in the rain", "build tall towers"),
               game=s.pick("hide and seek", "tag", "catch", "follow the leader", "explorers"))
    opening(s, "had no friends", "was very lonely", "wanted a friend", "had just moved to a new place", "played alone every day")
    s("Every day, <H> {watched the others play|sat by the window|walked alone} and {wished for a friend|felt lonely}.", "[H/sad:I wish I had {a friend|someone to play with}.]", "The others said that <H> was too {small|slow|strange|shy} to play with them.")
    s.p("<day>, <H> {was sitting {under a tree|on a big rock}|was walking {by the river|in the woods}|went out to play}. <air>")
    s("There <H.he> {saw|met} <F.a>.", "Then <H.he> saw someone new. It was <F.a>.", "Suddenly, <F.a> came {out from behind a bush|down the path}.")
    s("[F/say:{Hello|Hi}! {My name is|I am} <F.n>. {What is your name|Who are you|Do you want to play}?]", "<F> looked {lonely|sad}, too. [H/ask:{Hello|Hi}. {Are you all right|Do you want to play with me}?]")
    if f.human != h.human or (not h.human and s.chance(0.6)):
        s("[H/answer:But you are a <F.kind> and I am a <H.kind>. Can we {be friends|play together}?] [F/happy:{Of course|Why not|Yes}! {Friends can be different|We can play anything}.]" if not (f.human and h.human) else "",
          "At first, <H> was {shy|a little afraid}. A <H.kind> and a <F.kind> were {very different|not the same at all}. But <F> had a {kind|friendly} smile.")
    else:
        s("<H> was shy, but <H.he> {smiled back|said yes}.", "[H/happy:Yes, {please|I would love to}!]")
    s.p("They played <game>. They {laughed and laughed|ran in circles|rolled down the hill}.", "First they played <game>. Then they {shared a snack|looked for shiny stones|picked flowers}.")
    s("<H> {could|showed <F> how to} <can>, and <F> {could|showed <H> how to} <can2>.", "<F> liked the way <H> could <can>. <H> liked the way <F> could <can2>.", "<H> found out that <F> could <can2>. [H/happy:{Wow|That is amazing}! Can you teach me?]")
    s.maybe(0.5, "When it began to rain, they {hid under a big leaf|sat under a tree} and told each other stories.", "When <H> fell and hurt <H.his> knee, <F> {helped <H.him> up|stayed with <H.him>}." if h.human else "When <H> got tired, <F> {sat with <H.him>|waited for <H.him>}.")
    s.p("When the sun went down, it was time to go home. [F/ask:Will you come back tomorrow?] [H/happy:{Yes|Of course|I promise}!]", "[H/happy:{This was the best day|I am so happy I met you}.] [F/happy:{Me too|So am I}! Let's play again tomorrow.]")
    closing(s, "From that day on, <H> was never lonely again.", "<H> learned that {friends can be very different|a friend can be found anywhere|you only have to say hello}.", "After that, <H> and <F> {met every day|were best friends}.")


def plot_gift(s):
    """Making something for someone; three things are needed; a mishap; a party."""
    h = hero(s, 0.5, 0.46)
    if s.chance(0.5):
        parent(s, "P")
    else:
        friend(s, "P")
    who = s.c["P"]
    dish = s.pick(FOODS)
    fr = s.some(FRUITS, 2)
    s.v.update(dish=dish, i1=s.pick("flour", "honey", "milk", "eggs", "butter"), i2=fr[0], i3=s.pick("sugar", "water from the well", "a little salt", "nuts", "cream"),
               g1=s.pick("the farmer", "the old hen", "the miller", "the friendly cow", "the baker", "a kind neighbor"), place2=s.pick("in the garden", "in the woods", "at the market", "on the hill"))
    opening(s, "loved to cook", "loved to make {things|surprises} for others", "was always thinking of others", "liked to bake", "loved parties")
    s.p("<day>, <H> remembered that it was <P.s> birthday. [H/say:I will make <dish>!]" if s.chance(0.6) else "<day>, <P> was {sick in bed|very sad|tired}. [H/say:I {know|have an idea}! I will make {some |}<dish> for <P.him>.]",
        "Tomorrow was <P.s> birthday. <H> wanted to make {something special|a surprise}. [H/say:I will make <dish>!]")
    s.v["PNAME"] = who.name or ""
    s("[H/say:I need <i1>, <i2> and <i3>.]", "First, <H.he> needed <i1>, <i2> and <i3>.", "<H> looked in the kitchen, but there was no <i1> and there were no <i2>.")
    s.p("<H> {went|<H.go>} to <g1>. [H/ask:{May|Can} I {please |}have some <i1>?]", "First, <H> went to <g1> and asked for some <i1>.")
    s("<g1> said, \"{Yes, of course|Of course, my dear|Yes, if you help me a little first}.\" {<H> {said thank you|was glad}.|So <H> helped, and then <H.he> got the <i1>.}")
    s("Then <H> {picked|found} {some |}{sweet|fresh|ripe} <i2> <place2>.", "Next, <H> went to {get|find} <i2> <place2>.")
    mis = s.pick("none", "trip", "burn", "ants", "rain")
    if mis == "trip":
        s.p("On the way home, <H> {tripped over a {root|stone}|slipped in the mud}. The <i2> rolled everywhere! [H/sad:Oh no! Now {everything is ruined|I have nothing}.]")
        s("But {some|two little} birds saw it, and they {helped pick up|brought back} the <i2>, one by one.", "<H> wanted to cry. Then <H.he> took a deep breath and picked them all up again.")
    elif mis == "burn":
        s.p("<H> {mixed|stirred} everything and put it {in the oven|on the fire}. But then <H.he> fell asleep! When <H.he> woke up, it was {black|burned}.")
        s("[H/sad:{Oh no|It is ruined}! What will I do now?] {Then|After a while} <H.he> said, \"I will try again.\" This time, <H.he> {watched it carefully|did not fall asleep}.")
    elif mis == "ants":
        s.p("When <H> came back to the kitchen, {a row of ants|a small mouse} was eating the <i2>! [H/kind:{You must be hungry|Please leave some for me}.] <H> gave away a little of it, and there was still {enough|plenty}.")
    elif mis == "rain":
        s.p("Then it {began|started} to rain. <H> {put everything under <H.his> coat|hid under a big leaf with <H.his> basket} so that nothing would get wet.")
    s.p("{At home|Back home|In the kitchen}, <H> mixed the <i1> and the <i2>. <H.he> added <i3> and stirred {and stirred|it well}. Soon the whole house smelled {sweet|good|wonderful}.", "<H> worked {all afternoon|all morning}. <H.he> mixed and stirred and {tasted|waited}. {Finally|At last}, the <dish> was ready.")
    s("When <P> came {home|in}, <H> shouted, \"{Surprise|Happy birthday|This is for you}!\"" if mis != "x" else "", "<H> {carried|brought} the <dish> to <P>. [H/happy:{I made this for you|Surprise|This is for you}!]")
    s("[P/happy:{For me|Oh, thank you|How wonderful}! {This is the best <dish> I have ever had|You are so kind|Thank you, <H.voc>}.]", "<P> {took a bite|tasted it} and {smiled|laughed}. [P/happy:It is {delicious|so good|wonderful}!]")
    s("They {ate|shared} it together, and {there was enough for everyone|they saved a piece for <g1>}.", "They {called|invited} all their friends and had a {little|big} party.")
    s.p()
    closing(s, "<H> learned that {the best gifts come from the heart|it feels good to make others happy|making something with love is the best gift}.", "<P> gave <H> a big hug.", "{It was a lot of work, but it was worth it|It was a small gift, but it was made with love}.")


MYSTERIES = [("a strange {tapping|knocking} sound", "tap, tap, tap", "a woodpecker making a new home in {the old tree|a tree}", "It was only building a house for its babies"),
             ("tiny footprints in the {snow|mud}", "", "a family of mice having a picnic", "They were too shy to say hello"),
             ("that the cookies were {gone|missing}", "", "a hungry little raccoon behind the {door|shed}", "It had not eaten for two days"),
             ("a {soft|sad} song outside", "la, la, la", "a lonely cricket under the {window|porch}", "It was singing to find a friend"),
             ("a light {moving|dancing} in the garden", "", "a hundred fireflies", "They were having a dance"),
             ("that one {carrot|apple} was missing from the garden every {day|morning}", "", "a tiny rabbit with {three|four} babies", "They were very hungry"),
             ("a {big|round} blue egg in the {grass|garden}", "crack, crack", "a baby {duck|goose|dragon}", "It thought that <H> was its mother"),
             ("a trail of {shiny|white} {feathers|stones}", "", "a {magpie|crow} with a nest full of {shiny|pretty} things", "It was only collecting gifts for its friends"),
             ("a door {in a tree|in the garden wall} that had never been there before", "creak", "a tiny old {man|elf} with a pot of tea", "He had been waiting for a guest"),
             ("a {funny|strange} smell", "", "a baby skunk who was lost", "It was scared and alone"),
             ("that someone had left {flowers|a small gift} at the door", "", "the shy {boy|girl} who lived next door", "There was a note that said, \"Please be my friend\"")]


def plot_mystery(s):
    """A puzzle; clues; a friendly answer."""
    h = hero(s, 0.55, 0.4)
    friend(s, "F")
    k = s.pick(MYSTERIES)
    s.v.update(clue=s.x(k[0]), noise=k[1], answer=s.x(k[2]), why=k[3])
    opening(s, "loved to {solve mysteries|find out things}", "was very curious", "always asked questions", "liked to look closely at everything")
    heard = k[1] and "song" in k[0] or "sound" in k[0]
    verb = "heard" if heard else "smelled" if "smell" in k[0] else "saw" if k[0].startswith(("a ", "tiny", "that someone")) else "noticed"
    s.v["verb"] = verb
    s.p("<day>, <H> <verb> <clue>." if "song" not in k[0] else "One night, <H> <verb> <clue>.")
    if k[1]:
        s('"%s," it went. "%s!"' % (k[1].capitalize(), k[1].capitalize()), "")
    s("[H/ask:{What can it be|What is this|Who could have done that|How strange! What could it be}?]", "<H> {scratched <H.his> head|was very surprised}. [H/say:I must find out!]")
    s("<H> {went|<H.go>} to find <H.his> friend <F.n>. [H/say:{Come quickly|You have to see this|I need your help}!]", "<H.he> told <H.his> friend <F.n> about it.")
    s("[F/scared:{Maybe it is a monster|What if it is something scary|Are you sure we should look}?] [H/answer:{I don't think so|Don't be afraid|Let's be brave}. {We will look together|Stay close to me}.]", "[F/happy:A mystery! {Let's follow the clues|I will help you|How exciting}!]")
    s.p("{They tiptoed|They walked slowly|Quietly, they went} {around the corner|across the yard|through the tall grass|down the path}. They looked {under the bushes|behind the wall}. {Nothing|No one} was there.", "First they looked {behind the house|under the old bench}. Then they looked {near the fence|in the bushes}.", "They waited and waited. {It got late|Nothing happened}. They were almost ready to {go home|give up}.")
    s("[F/whisper:{Look|Shh! Look over there|Did you see that}!]", "{Then|Suddenly}, something moved. <H> {held <H.his> breath|put a finger on <H.his> lips}." if h.human else "{Then|Suddenly}, something moved. <H> held <H.his> breath.")
    s("{It was|There they found|And there was} <answer>!", "And what did they see? <answer>!")
    s("<why>.", "<F> {laughed|began to laugh}. <why>.")
    s.p("[H/kind:{Hello|Don't be afraid}! {You do not have to hide. We are your friends.|Would you like something to eat?}]" if "note" not in k[3] and "fire" not in k[2] else "[H/happy:{How wonderful|How beautiful|So that was it}!]")
    s("They {brought|shared} some {food|bread and milk|cookies} and {talked|laughed} until {it was dark|bedtime}." if "fire" not in k[2] else "They sat in the grass and watched until {it was late|bedtime}.", "<H> and <F> were happy. The mystery was solved, and {they had made a new friend|nobody was afraid anymore}.")
    s.p()
    closing(s, "<H> learned that {things that seem scary are often friendly|it is good to ask questions|sometimes a mystery is a new friend waiting to be found}.", "[F/ask:What will we find tomorrow?] <H> only smiled.", "From that day on, everyone called them the best detectives in the {whole |}{town|land}.")


def plot_truth(s):
    """Something is broken, hidden, then told."""
    h = hero(s, 0.75, 0.25)
    parent(s)
    s.v.update(thing=s.pick("blue vase", "big plate", "favorite cup", "glass bowl", "old clock", "window", "lamp", "flower pot", "teapot", "picture frame", "mirror"),
               how=s.pick("was {running|jumping} inside the house", "was playing with a ball", "was dancing around the room", "tried to reach the cookies on the shelf", "was spinning in circles", "was chasing a fly"),
               hide=s.pick("hid the pieces under the bed", "put the pieces in a box and hid it", "pushed the pieces behind the sofa", "covered the pieces with a blanket"),
               blame=s.pick("the cat", "the wind", "the dog", "a bird"))
    opening(s, "was a good <H.boy>, but <H.he> was very {wild|fast}" if h.human else "was good, but sometimes a little wild", "loved to run and jump", "had a lot of energy", "liked to play inside when it rained")
    s.p("<day>, <H> <how>. Crash! <P.s> <thing> fell and broke.", "<day>, <H> <how>. {Suddenly|Then}, there was a loud crash. The <thing> was broken!", "One rainy day, <H> <how>. By accident, <H.he> hit the <thing>, and it broke into {little pieces|many pieces}.")
    s("[H/scared:{Oh no|Oh dear}! {<P.voc> will be angry.|What have I done?|Now I am in trouble.}]", "<H> was {scared|afraid}. <H.he> did not want {<P.him> to be angry|to get in trouble}.")
    s("<H.he> <hide>.", "Quickly, <H.he> <hide>.")
    s.p("{Later|Soon|After a while}, <P> came {home|into the room}. [P/ask:{Where is|Do you know what happened to} {my|the} <thing>?]")
    s("[H/answer:{I don't know|I did not see it|I think it was <blame>}.]", "<H> pointed {outside|away}. [H/answer:It was <blame>.]")
    s("But {<H.his> face got hot|<H.his> tummy felt funny|<H.he> could not look at <P.him>}.", "<P> {said nothing|looked sad}. <H> felt {bad|terrible} inside.")
    s.p("That night, <H> could not {sleep|eat <H.his> dinner}. The lie felt like a {heavy stone|big stone} in <H.his> {tummy|heart}.", "<H> tried to play, but it was not fun. <H.he> {kept thinking|could only think} about the {lie|broken <thing>}.")
    s("{At last|Finally}, <H.he> went to <P>. [H/sorry:{I have to tell you something|I told a lie}. I broke the <thing>. I am {so |very |}sorry.]", "<H.he> {got up|ran to <P>} and told the truth. [H/sorry:It was not <blame>. It was me. I'm sorry.]")
    s("<P> {hugged|gave a hug to} <H.him>. [P/kind:{Thank you for telling me the truth|I am proud of you for being honest|A <thing> can be fixed, but trust is very important}.]", "[P/kind:{I am sad about the <thing>, but I am happy that you told the truth|Everyone makes mistakes. It is brave to tell the truth}.]")
    s("Together they {cleaned up|picked up the pieces}{ and glued them together| and fixed it with glue|}.", "<H> {helped clean up|used <H.his> own coins to help buy a new one}.")
    s.p()
    closing(s, "<H> felt {light|much better|happy} again. <H.he> learned that {it is always better to tell the truth|the truth makes you feel better than a lie}.", "From that day on, <H> {always told the truth|never lied again}, even when it was hard.")


WISHES = [("to have all the {candy|cake} in the world", "there was candy everywhere", "<H.his> tummy hurt, and there was no room to {walk|play}", "sweet things are best when there is only a little"),
          ("to be as big as a house", "<H.he> grew and grew until <H.his> head touched the {clouds|roof}", "<H.he> could not go inside, and everyone ran away", "it is good to be just the right size"),
          ("that it would never be bedtime", "the sun stayed in the sky all night", "everybody was tired and grumpy", "the night is good for rest"),
          ("to be able to fly", "<H.he> rose up like a {balloon|bird}", "<H.he> could not come down, and all <H.his> friends were far below", "being with friends is better than being high above them"),
          ("for a hundred toys", "toys fell from the sky like rain", "there was nobody to play with", "one friend is better than a hundred toys"),
          ("to have all the gold in the land", "everything <H.he> touched turned to gold", "the bread was gold, and the flowers were cold and hard", "simple things are the real treasure"),
          ("that it would snow every day", "the snow came down and did not stop", "the flowers and the birds went away", "every season has its own beauty"),
          ("to be invisible", "no one could see <H.him> at all", "nobody said hello, and nobody could play with <H.him>", "it is nice to be seen"),
          ("to be the {fastest|strongest} one of all", "<H.he> won every {race|game}", "nobody wanted to play anymore", "games are more fun when everyone can win"),
          ("that all animals could talk", "the cats, the dogs and even the ants began to talk", "it was so loud that no one could {sleep|think}", "listening is as good as talking")]


def plot_wish(s):
    """A magic thing gives a wish that goes wrong."""
    h = hero(s, 0.6, 0.36)
    k = s.pick(WISHES)
    s.v.update(wish=s.x(k[0]), comes=k[1], wrong=k[2], lesson=k[3])
    c = s.put("M", Char(s.pick("fairy", "genie", "star", "frog", "fish", "wizard", "elf"), s.pick("m", "f"), None, s.pick("tiny", "golden", "magic", "shining", "strange"), False, paws="hands", go="flew"))
    s.v["magic"] = {"genie": "an old lamp", "star": "a star that had fallen from the sky", "fish": "a golden net in the water"}.get(c.kind, s.pick("a tiny bottle", "a golden ring", "an old box", "a little silver bell", "a round blue stone"))
    opening(s, "was never happy with what <H.he> had", "always wanted more", "liked to make wishes", "loved to {look at the stars|dream}")
    s.p("<day>, <H> found <magic> {in the grass|near the {river|path}|under a tree}. When <H.he> {touched it|picked it up}, <M.ak> {came out|appeared}!" if c.kind not in ("star", "fish", "frog") else "<day>, <H> found <M.ak> {that|who} was {stuck|in trouble} {near the river|by the pond}. <H> was kind and helped <M.him>.")
    s("[M/say:{Thank you for setting me free|Hello, <H.voc>|Thank you}. {I will give you one wish|You may have one wish|You can make one wish}.]", "[M/say:Because you {found|helped} me, I will give you {one|a} wish. {Think carefully|Choose well}.]")
    s("<H> did not think {very long|twice}. [H/happy:I wish <wish>!]", "[H/happy:{Wow|A wish}! I wish <wish>!]")
    s("{Poof|Whoosh|Ding}! {In a flash of light|All at once|Right away}, <comes>.", "The <M.kind> {smiled|waved a hand} and {suddenly|then} <comes>.")
    s.p("At first, <H> {was very happy|laughed and danced|thought it was wonderful}. But {soon|then|after a while}, <wrong>.", "[H/happy:{This is great|This is the best day of my life}!] But soon, <wrong>.")
    s("<H> {felt lonely|was sad|began to cry}. [H/sad:{This is not what I wanted|I made a bad wish|I wish everything was like before}.]", "[H/sad:I {did not think|was silly}. {I don't want this wish anymore|I want my old life back}.]")
    s("<H> {called|went back to find} the <M.kind>. [H/sorry:Please, {take my wish back|make everything like before}.]", "Then the <M.kind> came back. [M/ask:Are you happy with your wish?] [H/sad:No. {Please take it back|I was wrong}.]")
    s("[M/wise:{Now you understand|You have learned something}. {It is done|I will help you}.] And {in a moment|with a flash}, everything was {as it was before|back to normal}.")
    s.p("<H> {ran home|went home} and hugged <H.his> {family|friends}.", "[H/happy:Thank you! {I am happy with what I have|I have all I need}.]")
    closing(s, "<H> learned that <lesson>.", "From that day on, <H> was {happy|thankful} {for|with} what <H.he> had.")


def plot_race(s):
    """A contest; someone stops to help, or the slow one wins by not giving up."""
    h = hero(s, 0.4, 0.56)
    friend(s, "F")
    s.v.update(race=s.pick("race", "big race", "running race", "race around the {lake|pond}", "race up the hill"), prize=s.pick("a golden cup", "a big cake", "a shiny medal", "a blue ribbon", "a basket of apples"),
               far=s.pick("the old oak tree", "the bridge", "the top of the hill", "the red barn", "the other side of the field"))
    s.v["race"] = s.x(s.v["race"])
    opening(s, "loved to run", "was not very fast", "wanted to win something, just once", "was {the slowest of all|smaller than the others}")
    s.p("<day>, there was a <race>. The {winner|first one to reach <far>} would get <prize>.", "<day>, everyone came to see the <race>. The prize was <prize>.")
    s("<F.a> wanted to {win|be in the race}, too. [F/happy:I {am the fastest|will win|run like the wind}! {Nobody can beat me|You are too slow}.]", "<F.a> {came closer|laughed}. [F/ask:You want to race, <H.voc>? {But you are so slow|You will never win}!]")
    s("[H/answer:{I will do my best|We will see|I just want to try}.]", "<H> {said nothing|only smiled}.")
    s.p("\"{One, two, three, go|Ready, set, go}!\" {And they were off|Everybody ran}. <F> {was soon far ahead|ran very fast}.", "The race began. <F> {was in front|took the lead}, and <H> came {after|behind}.")
    ending = s.pick("help", "steady", "together")
    if ending == "steady":
        s("After a while, <F> looked back and could not see <H>. [F/think:I have {lots of|so much} time. I will {take a nap|eat some berries|rest in the shade}.]", "<F> stopped to {show off|pick some flowers|rest}. [F/think:I can win this {easily|any time}.]")
        s.p("But <H> did not stop. <H.he> {kept going|went on}, one step after another, {past <F>|up the hill}.", "<H> was tired, but <H.he> {did not give up|kept going}. Step by step, <H.he> came closer to <far>.")
        s("When <F> {woke up|looked up}, it was too late. <H> had {won|reached <far> first}!", "Everyone cheered. <H> had won <prize>!")
        s("[F/sorry:{You won|Well done}. {I should not have laughed|I was too proud}.] [H/kind:{Thank you|It is all right}. {You are very fast|Let's race again tomorrow}.]", "<F> was surprised. [F/sorry:You were better than me today.]")
        s.p()
        closing(s, "{Slow and steady wins the race|It does not matter how fast you are, if you do not give up}.", "<F> learned not to {laugh at others|be so proud}.", "<H> learned that it is important to keep going.")
    else:
        s.v["fall"] = s.pick("tripped over a {root|stone} and {hurt|twisted} {a leg|a foot}", "fell into a muddy hole", "got stuck in a bush", "slipped into the stream")
        s.p("{Then|But suddenly|Halfway there}, <F> <fall>. [F/cry:{Ouch|Help}!]", "Near <far>, <H> saw that <F> was in trouble. <F.he> had {fallen|slipped} and could not get up.")
        s("<H> could {see|almost touch} the finish line. {If <H.he> ran now, <H.he> would win|The prize was so close}. But <H> {stopped|turned around}.", "<H> had a choice. <H.he> could win, or <H.he> could help. <H> {did not think long|knew what to do}.")
        s("[H/kind:{Are you all right|Let me help you|Hold on to me}.]".replace("{Are you all right|", "{"), "<H> helped <F> {up|to stand}. [F/ask:Why {did you stop|are you helping me}? You could have won!] [H/kind:{You are more important than a race|Friends are better than prizes}.]")
        s("{Slowly, they walked|Side by side, they walked} to the finish line {together|}. Someone else {won|had won} the race, but everyone {clapped|cheered} for <H>." if ending == "help" else "Together they crossed the finish line at the same time. Everyone cheered, and they shared <prize>.")
        s.p()
        closing(s, "<H> did not {win|care about} the {race|prize}, but <H.he> had won a friend." if ending == "help" else "It was the best {race|prize} of all, because they {won it|did it} together.", "<H> learned that {being kind is better than winning|helping a friend is the best way to win}.")


def plot_garden(s):
    """A seed, patience, a plant."""
    h = hero(s, 0.6, 0.36)
    parent(s) if s.chance(0.6) else helper(s, "P")
    pl = s.pick(("sunflower", "tall as the house", "yellow"), ("pumpkin", "as big as a chair", "orange"), ("apple tree", "taller than <H>", "green"), ("rose", "as red as the sunset", "red"),
                ("bean plant", "all the way up to the roof", "green"), ("strawberry plant", "full of sweet berries", "red"), ("tomato plant", "full of round tomatoes", "red"), ("magic flower", "bright as a star", "blue"), ("watermelon", "as round as a ball", "green"), ("carrot", "as long as an arm", "orange"))
    s.v.update(plant=pl[0], look=pl[1], pc=pl[2], pest=s.pick("a hungry snail wanted to eat it", "the sun was too hot and the ground was dry", "a strong wind bent it", "weeds grew all around it", "a big storm came"))
    fixes = {"a hungry snail wanted to eat it": "gave the snail some other leaves to eat", "the sun was too hot and the ground was dry": "carried water from the well every morning", "a strong wind bent it": "tied it to a stick so it could stand", "weeds grew all around it": "pulled out the weeds one by one", "a big storm came": "covered it with a box until the storm was over"}
    s.v["fix"] = fixes[s.v["pest"]]
    opening(s, "loved {flowers|plants|the garden}", "wanted to grow something", "did not like to wait", "found a small brown seed")
    s.p("<day>, {<P> gave <H.him> a {tiny|small} seed|<H> got a tiny seed from <P>}. [H/ask:What {is it|will it be}?] [P/kind:{Plant it and see|Wait and see|It is a surprise}.]" if s.c["P"].fixed else "<day>, <H> met <P.ak>. The <P.kind> gave <H.him> a tiny seed. [P/kind:{Plant it and see|Take good care of it}.]")
    s("<H> dug a {small|little} hole, put the seed in, and covered it with {soft |}{dirt|earth}. Then <H.he> gave it some water.", "So <H> found a sunny place and planted the seed.")
    s.p("The next day, <H> {ran|hurried} to look. {Nothing was there|There was only dirt}. [H/sad:{Why is it not growing|Where is my plant}?]".replace(".]", "?]").replace("?}?]", "}?]"), "<H> looked every morning. One day went by, and then another. Nothing happened.")
    s("[P/kind:{Be patient|You have to wait|Good things take time}. {Seeds need sun, water and time|It is sleeping under the ground}.]", "[P/kind:Do not {give up|worry}. It {is growing where you cannot see it|needs more time}.]")
    s("So <H> {waited|gave it water every day} and {sang to it|waited}.", "<H> did not like to wait, but <H.he> gave it water every {day|morning}.")
    s.p("{At last|Then one morning|After two weeks}, a {tiny|little} green leaf {came out of|peeked out of} the ground! [H/happy:{Look|It is growing|Look, look}!]")
    s("It grew a little every day. But then <pest>. <H> {was worried|did not give up}. <H.he> <fix>.", "Then <pest>. [H/say:{I will help you, little plant|Don't worry, little plant}.] <H> <fix>.", "")
    s("Soon there was a {beautiful|big} <plant>. It was <look>.", "By {summer|the end of summer}, the <plant> was {big and strong|beautiful}. It was <look>.")
    s("Everyone came to {see it|look at it}. [P/happy:{You took good care of it|You were very patient|I am proud of you}.]", "<H> showed it to all <H.his> friends, and they {danced around it|shared what it gave}.")
    s.p()
    closing(s, "<H> learned that {good things take time|if you are patient and take care, small things can grow big|waiting can be hard, but it is worth it}.", "And when autumn came, <H> {kept|saved} a new seed to plant next year.")


def plot_grump(s):
    """Everybody fears a grumpy one, who is only lonely."""
    h = hero(s, 0.5, 0.46)
    kind = s.pick([k for k in ("bear", "troll", "giant", "dragon", "wolf", "badger", "old man", "old woman", "ogre", "goat", "crow", "lion") if k != h.kind])
    s.put("G", Char(kind, "f" if kind == "old woman" else "m", None, "grumpy", False, paws="hands", go="walked"))
    s.v.update(gh=s.pick("on top of the hill", "at the end of the path", "deep in the woods", "in a dark cave", "under the old bridge", "in a gray house"), bring=s.pick(FOODS),
               why=s.pick("nobody ever came to visit", "everyone ran away from <G.him>", "<G.he> had a {sore tooth|thorn in <G.his> foot} and it hurt all the time", "<G.he> had lost <G.his> best friend long ago", "<G.he> had never had a birthday party"))
    if "troll" in kind:
        s.v["gh"] = "under the old bridge"
    opening(s, "was kind to everyone", "liked to make others smile", "had many friends", "loved to visit others", "was not afraid of anything")
    s.p("<G.ak> lived <gh>. Everyone was afraid of <G.him>. <G.he> {shouted|growled} at anyone who came near.", "<gh>, there lived <G.ak>. {All the others|Everybody} said, \"{Stay away|Do not go there}! <G.he> is {mean|scary}!\"")
    s("[H/ask:Why is <G.he> so grumpy?] But nobody knew.", "<H> {wondered|wanted to know} why <G.he> was so {grumpy|angry}.", "But <H> thought that <G> looked more sad than {mean|angry}.")
    s.p("<day>, <H> had an idea. <H.he> {made|packed} some <bring> and went {to see <G>|<gh>}. {<H.his> heart beat fast|<H.he> was a little scared}.", "<day>, <H> took a basket with <bring> and knocked on the door." if "house" in s.v["gh"] else "<day>, <H> took a basket with some <bring> and went to see <G>.")
    s("[G/grump:{Who is there|Go away|What do you want}?]".replace("Go away|", ""), "[G/grump:{Go away|Leave me alone|I do not want any visitors}!]")
    s("[H/kind:{Hello|Good morning}. I {made|brought} some <bring>. {I thought you might be hungry|Would you like some}?]", "<H> did not run. [H/kind:I {only wanted to say hello|brought you something good to eat}.]")
    s("<G> {looked|stared} at <H> for a long time. Then <G.he> {took a bite|sat down}.", "<G> was {so surprised|very surprised}. {No one had ever been so kind to <G.him>|Nobody had brought <G.him> anything before}.")
    s.p("[H/ask:Why are you {so sad|always so grumpy}?] <G> {sighed|looked down}. <G.he> {said|told <H.him>} that <why>.", "<G> began to {cry|talk}. <G.he> {said|told <H.him>} that <why>.")
    if "sore tooth" in s.v["why"]:
        s("<H> looked closely and {gently |}helped. {Soon|In a moment}, it did not hurt anymore. [G/happy:Oh! That feels {much better|so good}!]")
    else:
        s("[H/kind:{I will be your friend|I can come every {day|week}|You are not alone anymore}.]", "[H/happy:{Then come with me|Come and play with us}! You can meet all my friends.]")
    s("For the first time in {years|a long time}, <G> smiled.", "[G/happy:{Thank you|You are very kind}. {I have not smiled for a long time|You are my first friend}.]")
    s.p("{The next day|Soon}, <H> {brought all <H.his> friends|told the others}. They {had a big picnic|played games|sang songs} with <G>, and nobody was afraid anymore.", "After that, <G> was not grumpy anymore. <G.he> {told the best stories|gave everyone rides on <G.his> back|helped everybody}." if not kind.startswith("old") else "After that, <G> was not grumpy anymore. <G.he> told the best stories in the whole village.")
    closing(s, "<H> learned that {someone who is grumpy may just be lonely|a little kindness can change everything|you should not judge others by how they look}.")


def plot_lostway(s):
    """H is lost and finds the way home by looking and thinking."""
    h = hero(s, 0.45, 0.5)
    parent(s)
    s.v.update(chase=s.pick("a {blue|yellow} butterfly", "a shiny beetle", "a rolling ball", "a funny little bird", "a trail of flowers", "a big bubble", "a leaf in the wind", "a white rabbit" if h.kind != "rabbit" else "a red leaf"),
               where=s.pick("forest", "woods", "big market", "tall grass", "valley") if h.human else s.pick("forest", "woods", "tall grass", "valley"))
    opening(s, "loved to explore", "was always following something", "liked to wander", "often forgot to look where <H.he> was going")
    s.p("<day>, <H> saw <chase> and {followed it|ran after it}. <H.he> {ran and ran|went farther and farther} into the <where>.", "<day>, <H> and <P> went for a walk. <H> saw <chase> and {followed it|ran after it}.")
    s("When <H.he> {stopped|looked around}, {everything looked different|nothing looked the same}.", "{Then|After a while}, <H.he> stopped. <H.he> did not know where <H.he> was.")
    s("[H/scared:{Where am I|Which way is home}?]", "[H/cry:{Mom|Dad|Hello}! Where are you?] No one answered.".replace("{Mom|Dad|Hello}", "{Hello|<P.voc>}"), "<H> was lost. <H.he> {wanted to cry|felt very small}.")
    s.p("Then <H.he> remembered what <P> {always said|had told <H.him>}. \"{When you are lost, stay calm and think|Stop, look and listen|If you are lost, look for something you know}.\"", "<H> sat down {on a stone|under a tree} and took a deep breath. [H/think:I must {stay calm|think}.]")
    clues = s.some(["<H.he> heard the sound of the {river|stream} and remembered that it ran past home.", "<H.he> saw {a tall tree|a big gray rock} that looked like {a chair|a sleeping bear}. <H.he> had passed it before.", "<H.he> saw <H.his> own footprints in the mud and followed them back.", "<H.he> smelled {fresh bread|smoke from a chimney} in the wind." if h.human else "<H.he> smelled {home|the flowers that grew near home} in the wind.",
                    "the sun was going down, and <H.he> knew that home was on the side of the sunset.", "a {kind|small} {bird|owl} pointed the way with {a wing|its wing}."], s.pick(2, 3))
    links = ["First, ", "Then, ", "At last, "]
    for i, c in enumerate(clues):
        lead = links[i] if s.chance(0.8) else ""
        s(lead + c)
    s("Step by step, <H> {walked|made <H.his> way} back.", "<H> {walked faster and faster|began to run}.", "")
    s.p("{Finally|At last}, <H.he> saw {home|a light in the window|<P>}! {<P> was waiting|<P> {ran to meet <H.him>|came running}}.", "And there was <P>, calling <H.his> name!" if h.name else "And there was <P>, looking everywhere!")
    s("[P/happy:{There you are|I was so worried|Oh, my dear}! {I am so happy to see you|I looked everywhere}.]", "<P> {hugged|held} <H.him> {tight|for a long time}. [P/ask:How did you find the way {home|back}?] <H> told <P.him> {all about it|everything}.")
    s("[H/happy:I {stayed calm and used my eyes and ears|remembered what you told me}.] [P/kind:{That was very clever|You are very brave|I am proud of you}. But next time, {stay close to me|do not go so far}.]", "")
    s.p()
    closing(s, "<H> learned to {stay calm when things go wrong|look where <H.he> was going}.", "After that, <H> still loved to explore, but <H.he> never went too far.")


SMALL = [("car", "red", "the big trucks", "too small to carry heavy things", "drive down a narrow road where the trucks could not go", "bring medicine to an old man", "in a busy town", "drove"),
         ("boat", "little blue", "the big ships", "too small to cross the sea", "slip between the rocks where the ships could not go", "save two children", "in the harbor", "sailed"),
         ("star", "tiny", "the bright stars", "too small to shine", "shine through a hole in the clouds", "show a lost sailor the way home", "high in the night sky", "moved"),
         ("cloud", "small white", "the big gray clouds", "too small to make rain", "give one soft rain", "save a thirsty flower", "in the wide blue sky", "floated"),
         ("train", "old green", "the fast new trains", "too old and too slow", "keep going up the snowy hill when the others got stuck", "bring food to the village", "at the station", "rolled"),
         ("lamp", "little", "the big bright lamps", "too weak to light a room", "fit into a small dark corner", "help a girl find her ring", "in a shop on the corner", "shone"),
         ("tree", "small", "the tall trees", "too short to touch the sky", "hold a nest that the wind could not reach", "keep a bird family safe", "at the edge of the forest", "stood"),
         ("candle", "short", "the tall candles", "too short to be used", "burn all night when the power went out", "keep a little boy from being afraid", "in a kitchen drawer", "stood"),
         ("bus", "yellow", "the shiny new buses", "too old and too loud", "start on the coldest morning of the year", "take the children to school", "in a small town", "drove"),
         ("teapot", "round", "the fancy silver pots", "too plain and chipped", "keep tea warm the longest", "warm up a tired traveler", "in an old kitchen", "sat"),
         ("plane", "small", "the giant planes", "too small to fly far", "land on the tiny island where the giants could not", "bring a doctor to a sick child", "at the airport", "flew"),
         ("tractor", "rusty", "the big new tractors", "too old to work", "pull the others out of the deep mud", "save the harvest", "on a farm", "rolled"),
         ("key", "tiny", "the big golden keys", "too small to open a real door", "open a little box that no one else could open", "give a lonely woman her old letters", "on a big ring of keys", "hung"),
         ("snowflake", "tiny", "the other snowflakes", "too small to matter", "land on a sad girl's nose", "make her laugh", "in a cold gray cloud", "danced"),
         ("raindrop", "little", "the big waves of the sea", "too small to do anything", "fall on a dry seed", "wake up a sleeping flower", "in a big gray cloud", "fell"),
         ("broom", "old", "the shiny new machines", "too old to be useful", "sweep under the low shelf", "find a lost wedding ring", "in a dark closet", "stood"),
         ("bell", "small", "the great church bells", "too quiet to be heard", "ring when the big bells were frozen", "wake the town when there was a fire", "in a little tower", "hung")]


def plot_small(s):
    """A little thing thinks it is too small; it turns out just right."""
    k = s.pick(SMALL)
    g = s.pick("n", "m", "f")
    name = s.pick(PET_M if g == "m" else PET_F) if g != "n" and s.chance(0.8) else None
    h = s.put("H", Char(k[0], g, name, k[1] if k[1].startswith(("little", "tiny", "small")) else s.pick("little", "small") + " " + k[1], False, home=k[6], go=k[7], paws="sides"))
    s.v.update(big=k[2], weak=k[3], can=k[4], good=k[5], home=k[6])
    h.adj = h.adj if s.chance(0.5) else h.adj.split()[0]
    s("Once upon a time, there was <H.a>. <H.he> lived <home>.", "Once upon a time, <home>, there lived <H.a>.", "There once was <H.a> who lived <home>.", "Once there was <H.a>. <H.he> lived <home>." )
    s("<H> was {much smaller|not as big|not as grand} as <big>." .replace("much smaller", "not as strong"), "Every day, <H> looked at <big> and {felt sad|sighed}.")
    s("<big> {always laughed|liked to laugh} at <H.him>. \"{You are|Look at you! You are} <weak>,\" they said.", "[H/sad:I am <weak>. {Nobody needs me.|What am I good for?}]")
    s.p("Then, one {cold|dark|stormy|gray} {day|night|morning}, {something happened|there was trouble|everything changed}. {Someone needed help|Help was needed}, but <big> could {do nothing|not help}.", "<day>, there was a problem. <big> {tried and tried|tried to help}, but they could not do it.")
    s("[H/say:{Let me try|I will try|Maybe I can help}!]", "[H/ask:May I try?]")
    s("<big> laughed. \"You? {But you are so small|You can never do it}!\"", "Nobody {believed|thought} that <H> could do it.", "")
    s("But <H> {was brave|did not listen}. <H.he> was {just right|the only one} to <can>.", "<H> {took a deep breath|gathered all <H.his> courage}. It was not easy, but <H.he> could <can>.")
    s("And that is how <H> {was able to|could} <good>.", "<H.he> did it! <H.he> was able to <good>.")
    s.p("Everyone {cheered|was amazed}. \"{Hooray for|Thank you,} <H.n>!\" they {cried|shouted}." if name else "Everyone {cheered|was amazed}. \"{Hooray|Thank you}, little <H.kind>!\" they {cried|shouted}.", "<big> were {quiet|ashamed}. \"We are sorry,\" they said. \"{You are small, but you are great|We should not have laughed}.\"")
    s("[H/happy:{I am small, but I can help|I am happy to be just me}!]", "<H> {glowed|was full} with joy.", "From that day on, no one laughed at <H> again.")
    s.p()
    closing(s, "<H> learned that {everyone is special in their own way|even the smallest one can do big things|it is good to be yourself}.", "You do not have to be big to do something {good|great}.")


def plot_night(s):
    """A dreamlike journey at night."""
    h = hero(s, 0.65, 0.33)
    s.v.update(guide=s.pick("the moon", "a shooting star", "a friendly cloud", "a silver owl", "a small flying ship", "a white horse with wings", "a paper boat"),
               land=s.pick("a land made of candy", "a city in the clouds", "an island where all the toys could talk", "the garden of the moon", "a forest where the trees sang", "a sea full of stars", "a valley where it was always {spring|morning}"),
               king=s.pick("a king made of snow", "a queen with a crown of stars", "a talking teddy bear", "an old man with a beard as white as milk", "a rabbit in a blue coat", "a giant who played the harp"),
               need=s.pick("had lost a song", "could not stop crying", "had forgotten how to laugh", "wanted to hear a bedtime story", "was looking for a missing star", "was all alone"))
    solve = {"had lost a song": "sang the song that <H.his> mother always sang", "could not stop crying": "gave a big hug and told a funny joke", "had forgotten how to laugh": "made the funniest face in the world", "wanted to hear a bedtime story": "told the best story <H.he> knew",
             "was looking for a missing star": "found the star asleep under a leaf", "was all alone": "stayed and played until it was almost morning"}
    s.v["solve"] = solve[s.v["need"]]
    opening(s, "could not sleep", "loved to look at the {moon|stars}", "had wonderful dreams", "always wondered what was behind the moon")
    s.p("One {quiet|clear|warm} night, <H> {looked up at the sky|sat by the window|lay awake}. {Suddenly|Then}, <guide> came down {to <H.him>|from the sky}. \"{Come with me|Do not be afraid}! I will show you something wonderful,\" it said. \"Hold on tight!\"",
        "One night, there was a soft light. It was <guide>! \"Hello,\" it said. \"Would you like to {go on an adventure|fly with me}?\"")
    s("[H/happy:{Yes, please|Oh, yes|I would love to}!]", "<H> was {surprised|a little afraid}, but <H.he> nodded.")
    s("{Up, up, up they went|They flew over the {roofs|trees} and the {hills|rivers}}, until they came to <land>.", "They went {higher and higher|far, far away}, and soon they saw <land>.")
    s.p("There <H> met <king>, who <need>.", "In the middle of it all sat <king>, who <need>.")
    s("[H/ask:{Can I help you|May I help}?]", "[H/kind:{Do not be sad|I will help you}.]", "<H> wanted to help.")
    s("So <H> <solve>.", "<H> thought for a moment. Then <H.he> <solve>.")
    s("All the stars {danced|clapped|shone brighter}. \"Thank you,\" said the voice. \"{You have a kind heart|You may come back any time}.\"", "{Everything|The whole place} began to {shine|sing}. {Everyone was happy|There was music and laughter}.")
    s("As a gift, <H> got {a tiny star|a silver feather|a small blue stone|a glowing seed}.", "")
    s.p("When the {night was almost over|sky turned pink}, <guide> took <H> home.", "Then it was time to go home. <H> {waved goodbye|closed <H.his> eyes}.")
    s("In the morning, <H> {woke up in <H.his> bed|opened <H.his> eyes}. [H/ask:Was it {only|all} a dream?] But {in <H.his> hand|beside <H.him>} lay {something that shone|a little bit of stardust}.", "<H> fell asleep {right away|at once} and slept until the sun came up.")
    closing(s, "And every night after that, <H> {waved|smiled} at the {moon|stars}.", "<H> never told anyone, but <H.he> never forgot it.", "Now <H.he> always went to bed with a smile.")


def plot_weather(s):
    """Weather destroys a home; friends build together."""
    h = hero(s, 0.2, 0.78)
    friend(s, "F")
    s.v.update(storm=s.pick("a big storm", "a strong wind", "heavy rain", "a great flood", "so much snow"), home2=s.pick("house", "home"), mat=s.pick("sticks and leaves", "stones and mud", "wood and straw", "branches and moss"))
    opening(s, "liked {<H.his> little home|a quiet life} very much", "worked hard all summer", "had a {cozy|lovely} home", "loved {rain|windy days}")
    s.p("One night, there was <storm>. {It blew|It came} all night long. <H> {hid under the blanket|was very scared}.".replace("{It blew|It came}", "It went on"), "<day>, the sky turned {dark|black}. Soon there was <storm>.")
    s("When {morning came|it was over}, <H.s> <home2> was {gone|broken|full of water}.", "In the morning, <H> saw that <H.his> <home2> was broken. {The roof was gone|Nothing was left}.")
    s("[H/sad:{Where will I sleep now|What will I do|My home is gone}?]".replace("|My home is gone", ""), "<H> sat down and {cried|began to cry}.")
    s.p("<F.a> {came by|heard <H.him>}. [F/kind:{Don't be sad|Do not cry}. {You can stay with me|We will build a new one|I will help you}.]", "<H.s> friend <F.n> came {right away|as fast as <F.he> could}. [F/kind:{I will help you|Let us build a new home}!]")
    s("They {looked for|gathered} <mat>. {It was hard work|They worked all day}.", "First, they {found|collected} <mat>. Then they began to build.")
    k = s.pick(1, 2)
    for i in range(k):
        kk = "AB"[i]
        helper(s, kk)
        s("{Soon|Then}, <%s.ak> came to help, too. The <%s.kind> {brought|carried} {some wood|some soft grass|a bag of nails|food for everyone}." % (kk, kk))
    s.p("{At last|When the sun went down|After three days}, the new home was {ready|done}. It was {stronger and bigger|even better} than before.", "Together, they built a {strong|fine} new home in just {one day|two days}.")
    s("[H/happy:{Thank you|Thank you, everyone}! {I could not have done it alone|You are the best friends}.]", "<H> made {soup|tea} for everyone, and they {sang songs|told stories} {by the fire|until late}.")
    s("The next time there was <storm>, {everyone was safe and warm inside|nobody was afraid}.", "")
    s.p()
    closing(s, "<H> learned that {friends make hard work easy|together we can do anything|it is good to have friends who help}.")


def plot_trade(s):
    """A chain of trades: to get one thing, another is needed first."""
    h = hero(s, 0.45, 0.5)
    chain = s.pick([("a new roof", [("the carpenter", "a new roof", "bread"), ("the baker", "bread", "milk"), ("the cow", "milk", "fresh grass")], "fresh grass", "the meadow"),
                    ("a warm coat", [("the tailor", "a coat", "wool"), ("the sheep", "wool", "sweet apples"), ("the farmer", "sweet apples", "help with the baskets")], "help with the baskets", None),
                    ("a red kite", [("the toy maker", "a kite", "some string"), ("the spider", "some string", "a quiet corner"), ("the owl", "a quiet corner", "a song")], "a song", None),
                    ("some soup for a sick friend", [("the cook", "some soup", "carrots"), ("the rabbit", "carrots", "water for the garden"), ("the well keeper", "water for the garden", "a story")], "a story", None),
                    ("a little boat", [("the boat builder", "a boat", "rope"), ("the fisherman", "rope", "a basket of berries"), ("the bear", "a basket of berries", "a back scratch")], "a back scratch", None),
                    ("a birthday cake", [("the baker", "a cake", "eggs"), ("the hen", "eggs", "corn"), ("the mouse", "corn", "a soft bed of leaves")], "a soft bed of leaves", "the woods"),
                    ("a music box", [("the clockmaker", "a music box", "a golden feather"), ("the goose", "a golden feather", "clean water"), ("the gardener", "clean water", "some help with the weeds")], "some help with the weeds", None)])
    want, links, last, place = chain
    s.v.update(want=want, last=last, place=place or "")
    opening(s, "wanted <want>" if "friend" not in want else "wanted to help a sick friend", "was {clever|polite} and never gave up")
    if s.chance(0.6) and "friend" not in want:
        s("More than anything, <H> wanted <want>.")
    s.p()
    for i, (who, gives, needs) in enumerate(links):
        s.v.update(who=who, gives=gives, needs=needs)
        if i == 0:
            s("<day>, <H> went to <who>. [H/ask:{Please|Hello}, may I have <gives>?]", "<day>, <H> asked <who> for <gives>.")
            s("\"{Yes|Of course}, but first {I need|you must bring me} <needs>,\" said <who>.")
        else:
            s("{So|Then} <H> went to <who>. [H/ask:{Please|May I ask you something}. Can you give me <gives>?]".replace("{Please|May I ask you something}. Can", "{Please, can|Can"), "So <H> <H.go> to <who> and asked for <gives>.") if False else s("So <H> <H.go> to <who> and asked for <gives>.", "So <H> went to find <who>. [H/ask:Can you {please |}give me <gives>?]")
            s("\"{I will|Gladly}, if you {give me|bring me} <needs>,\" said <who>.", "<who> said, \"I would like <needs> first.\"")
    s.p("<H> thought about it. [H/happy:{That is easy|I can do that}!]", "<H> {smiled|laughed}. {That was something <H.he> could do|At last, here was something easy}.")
    s(("<H> went to <place> and {found|got} <last>." if place else {"a song": "<H> sang the sweetest song.", "a story": "<H> told a long and funny story.", "a back scratch": "<H> scratched and scratched until the bear laughed.", "help with the baskets": "<H> carried all the baskets to the barn.", "some help with the weeds": "<H> pulled out all the weeds."}[last]))
    rev = links[::-1]
    parts = []
    for i, (who, gives, needs) in enumerate(rev):
        parts.append(s.x("%s gave <H.him> %s" % (who, gives)))
    s("Then " + parts[0] + ". " + (parts[1][0].upper() + parts[1][1:]) + ". And {at last|finally} " + parts[2] + "!", "So " + ", ".join(parts[:-1]) + ", and " + parts[-1] + ".")
    s.p("<H> was so happy{| that <H.he> danced all the way home}. [H/happy:Thank you, everyone!]", "{It had been a long day, but|It was a lot of walking, but} <H> had <want>." if "friend" not in want else "<H> brought the soup home, and soon the sick friend was well again.")
    closing(s, "<H> learned that {when everyone helps a little, everyone gets what they need|it is good to be patient}.", "And everyone in the {village|land} was a little happier, too.")


def plot_pet(s):
    """A child finds a stray pet, cares for it, and an owner or a home is found."""
    h = make_kid(s)
    s.put("H", h)
    parent(s)
    kind = s.pick("puppy", "kitten", "bunny", "parrot", "turtle", "duckling", "hamster", "pony", "dog", "cat")
    g = s.pick("m", "f")
    pet = s.put("D", Char(kind, g, None, s.pick("small", "wet", "brown", "white", "hungry", "black", "fluffy" if kind not in ("turtle",) else "green"), False, paws="feet", go="ran"))
    s.v.update(petname=s.pick(PET_M if g == "m" else PET_F), food=s.pick("some milk", "some bread", "a bowl of water and some food", "a piece of apple"), spot=s.pick("under a bench", "in a box by the road", "behind the school", "near the garden gate", "under a bush in the rain"))
    opening(s, "loved animals", "wanted a pet more than anything", "always asked for a pet", "was very gentle with animals")
    s("[H/ask:Can we have a pet, {please|<P.voc>}?] But <P> {always said no|said that a pet was a lot of work}.", "")
    s.p("<day>, <H> found <D.ak> <spot>. The <D.kind> was {shaking|cold and hungry|all alone}.", "<day>, on the way home from school, <H> saw <D.ak> <spot>. <D.he> looked {sad|cold|lost}.")
    s("[H/kind:{Hello, little one|Don't be scared|Oh, you poor thing}. {I will take care of you|Come here|Are you hungry}.]".replace("|Are you hungry", ""), "<H> sat down slowly so that <D.he> would not be afraid.")
    s("<H.he> {carried|took} <D.him> home and gave <D.him> <food>.", "<H.he> wrapped <D.him> in {a coat|a warm scarf} and took <D.him> home.")
    s("[P/ask:{What is this|Where did you find <D.him>|Who is this}?] [H/answer:<D.he> was all alone. {Can <D.he> stay|May we keep <D.him>}? Please?]")
    s("[P/kind:{First we must find out if someone is looking for <D.him>|<D.he> can stay for one night}.]", "<P> looked at the <D.kind>. [P/kind:{All right|Okay}. But you must {take care of <D.him>|feed <D.him> every day}.]")
    if s.chance(0.4):
        s.p("The next day, they {put up signs|asked all the neighbors}. {Soon|Two days later}, {an old woman|an old man|a little girl|a little boy} came to the door. The <D.kind> {jumped|was so happy}! It was {the owner|<D.his> home}.".replace("|<D.his> home}", "}").replace("{the owner}", "the owner"))
        s("<H> was sad to say goodbye, but <H.he> was glad that the <D.kind> {had a home|was not lost anymore}. \"You can visit {any time|every day},\" said the owner. \"{You saved my little friend|Thank you for being so kind}.\"")
        s.p("So <H> {visited|went to see} the <D.kind> every {week|day} after school.", "")
        closing(s, "<H> learned that {doing the right thing can be hard, but it makes you feel good inside|loving someone means wanting them to be happy}.")
    else:
        s.p("No one came to ask for the <D.kind>. <H> named <D.him> <petname>. Every {day|morning}, <H> {fed|gave food to} <petname> and {played with <D.him>|took <D.him> outside}.", "<H> named the <D.kind> <petname>. <H.he> fed <D.him>, washed <D.him> and {slept next to <D.him>|made <D.him> a soft bed}.")
        s("Sometimes it was hard work. Once, <petname> {chewed a shoe|made a big mess in the kitchen|ran away in the rain}. But <H> {was patient|did not get angry|never gave up}.", "<petname> grew {bigger and stronger|happy and healthy}.")
        s("[P/happy:{You are taking such good care of <D.him>|I was wrong. You are ready for a pet}. <petname> can stay forever.]", "<P> saw how well <H> took care of <petname>, and <P.he> was proud.")
        s.p("<H> and <petname> {were best friends|did everything together}.")
        closing(s, "<H> learned that taking care of a pet is {a lot of work, but also a lot of love|a big job, and a happy one}.")


def plot_quest(s):
    """A fairy-tale quest of a knight, a princess, a robot or a dragon."""
    names = []
    h = make_fantasy(s) if s.chance(0.75) else make_kid(s)
    s.put("H", h)
    s.v.update(land=s.pick("kingdom", "village", "valley", "land"), lost=s.pick("the golden bell", "the magic lamp", "the king's crown", "the rainbow stone", "the queen's song", "the key of spring", "the sun drum", "the silver star"),
               harm=s.pick("it had not rained for a year", "the flowers would not open", "everyone was sad", "it was always winter", "no one could laugh anymore", "the night would not end"),
               place=s.pick("at the top of the cold mountain", "on an island in the middle of the lake", "deep in the whispering woods", "in a cave behind the waterfall", "in the tower without a door"))
    opening(s, "was brave and kind", "wanted to have an adventure", "was the smallest in the <land>", "loved stories about heroes")
    s.p("<day>, {bad news came|there was bad news}. <lost> was gone, and without it, <harm>.", "But the <land> was in trouble. Someone had taken <lost>, and now <harm>.")
    s("[H/say:I will {find it|bring it back}!] {Everyone was surprised|Some people laughed|The king smiled}.".replace("|The king smiled", "") , "Many had tried to find it, but they all came back {with nothing|tired and cold}. [H/say:{Let me try|I will go}.]")
    s("An old {woman|man} said, \"It is <place>. {But be careful|Remember to be kind to everyone you meet}.\"", "A {wise old owl|little bird} said, \"You will find it <place>.\"")
    trials = s.some([("a river with no bridge", "<H> helped an old turtle who was stuck in the reeds, and the turtle carried <H.him> across"), ("a hungry wolf", "<H> shared <H.his> bread, and the wolf let <H.him> pass"),
                     ("a {stone|big} troll who asked a riddle", "\"What gets bigger the more you share it?\" asked the troll. <H> thought hard. \"Love,\" said <H>. The troll smiled and stepped aside"),
                     ("a wall of thorns", "<H> sang a soft song, and the thorns opened like a curtain"), ("a dark tunnel", "<H> asked the fireflies for help, and they lit the way"),
                     ("a crying giant", "<H> pulled a thorn out of the giant's foot, and the giant lifted <H.him> over the hill"), ("a bridge that was broken", "<H> tied it together with a long rope, knot by knot"),
                     ("a field of deep snow", "<H> followed the tracks of a white fox, who knew the safe way")], s.pick(1, 2, 2))
    s.p("So <H> set out. <H.he> walked {for a day and a night|for three days}.", "Early the next morning, <H> {packed some bread and water and left|said goodbye and left}.")
    lead = ["First, <H.he> came to ", "Then, <H.he> came to "]
    for i, (a, b) in enumerate(trials):
        s.v.update(a=a, b=b)
        s(lead[i] + "<a>. {It looked hard, but|<H> did not give up.} <b>." if not b.startswith(('"', "\"")) else lead[i] + "<a>. <b>.")
    last = s.pick("dragon", "witch", "empty", "child")
    s.p("At last, <H> {was|stood} <place>. There it was! <lost> {shone in the dark|lay on a stone}.", "Finally, <H> saw a light <place>. It was <lost>!")
    if last == "dragon" and h.kind != "dragon":
        s("But a {big|huge|green} dragon was sleeping {beside it|in front of it}. The dragon opened one eye. \"{I only took it because I was lonely|I like it because it is so pretty},\" it said.")
        s("[H/kind:{You can come with me|Come and live with us}. {Then you will not be alone|You will have many friends}.] The dragon {smiled|was so happy} and gave it back.")
    elif last == "witch" and h.kind != "wizard":
        s("An old witch was holding it. \"I {only wanted|just wanted} someone to visit me,\" she said {sadly|softly}. <H> {sat down|stayed} and had tea with her, and they talked until morning. Then the witch gave it back with a smile.")
    elif last == "child":
        s("A small, lost child was playing with it. <H> {gave the child a toy and|told the child a story and} took {both of them|them both} home.")
    else:
        s("No one was there to guard it. <H> {picked it up with care|held it tight} and {began the long way home|turned to go home}.")
    s.p("When <H> came back, {the bells rang|everyone danced in the streets}, and {soon |}all was {well|good} again.", "<H> brought <lost> home. {At once|Right away}, the trouble was over, and everybody {cheered|sang}.")
    s("\"{You are a real hero|How did you do it},\" {they all said|said the king}.".replace("{You are a real hero|How did you do it}", "You are a real hero"), "They gave <H> a {big party|golden medal}. But <H> said, \"I had a lot of help.\"")
    closing(s, "<H> learned that {kindness is stronger than a sword|being brave is good, but being kind is better|you do not have to be big to be a hero}.")


def plot_sea(s):
    """Under water."""
    kind = s.pick("fish", "crab", "octopus", "whale", "seahorse", "dolphin", "starfish", "sea turtle", "seal", "jellyfish")
    g = s.pick("m", "f")
    h = s.put("H", Char(kind, g, s.pick(PET_M if g == "m" else PET_F) if s.chance(0.85) else None, s.pick("little", "small", "young", "blue", "orange", "shy", "curious"), False,
                        home=s.pick("in the {deep |}blue sea", "near a {bright|colorful} reef", "at the bottom of the sea", "in a warm bay"), go="swam" if kind not in ("crab", "starfish") else "crawled", paws="fins"))
    k2 = s.pick([k for k in ("fish", "crab", "octopus", "whale", "seahorse", "dolphin", "starfish", "turtle", "shrimp", "snail") if k != kind])
    g2 = s.pick("m", "f")
    s.put("F", Char(k2, g2, s.pick([n for n in (PET_M if g2 == "m" else PET_F) if n != h.name]), s.pick("big", "old", "tiny", "green", "friendly", "shy"), False, go="swam", paws="fins"))
    opening(s, "loved to {swim and play|look for shells}", "wanted to see the {top of the sea|world}", "was a little shy", "liked to {hide in the seaweed|collect shiny things}")
    kind_of = s.pick("net", "pearl", "dark", "surface")
    if kind_of == "net":
        s.p("<day>, <H> met <F.a>. They {played|raced} {around the rocks|in the waves} and had {so much|a lot of} fun.")
        s("{Suddenly|Then}, a big net came down and {caught|trapped} <F>! [F/cry:{Help|Help me}! I can't get out!]")
        s("<H> was {very |}scared, but <H.he> did not {leave|swim away}. <H.he> called {all the crabs|the crabs and the little fish}. {Snip, snip|Together} they cut the net, one string after another.", "[H/answer:{I will not leave you|Hold still}!] <H> {pulled|bit} the net {again and again|as hard as <H.he> could}, until there was a hole.")
        s.p("At last, <F> was free. [F/happy:{Thank you|You saved me}! {You are a true friend|You are so brave}.]")
        closing(s, "<H> learned that {a true friend does not run away|even someone small can be brave}.", "After that, they always stayed far away from nets.")
    elif kind_of == "pearl":
        s.p("<day>, <H> found a {round|shining|white} pearl in {the sand|an old shell}. It was the most beautiful thing <H.he> had ever seen. [H/happy:{It is mine|I will keep it forever}!]")
        s("Then <H.he> heard someone crying. It was <F.a>. [F/sad:{I have lost my pearl|My pearl is gone}. {My grandma gave it to me|It was a gift from my mother}.]")
        s("<H> looked at the pearl. <H.he> wanted to keep it {so much|very much}. But <H.he> {knew|saw} how sad <F> was.", "<H> {was quiet for a moment|thought for a long time}. It was hard to give it back.")
        s("[H/kind:{Is this yours|I found it|Here it is}. {I found it in the sand|Please do not cry}.]".replace("{Is this yours|I found it|Here it is}", "{I think this is yours|Here it is}"))
        s.p("[F/happy:{Thank you|Oh, thank you}! {You are so kind|You are honest and kind}!] <F> {gave <H> a big hug|danced with joy}. From then on, they {looked for shells together|played together every day}.")
        closing(s, "<H> learned that {a friend is worth more than a pearl|it feels good to do the right thing}.")
    elif kind_of == "dark":
        s.p("There was a dark {cave|hole} near the reef. Everyone said that a monster lived there. <day>, <H.s> {shell|ball|toy} {rolled|fell} into the cave.")
        s("<H> {was afraid|shivered}, but <H.he> {swam|went} in, {slowly, slowly|very slowly}. Two big eyes looked at <H.him>. [H/scared:{Are you the monster|Please do not eat me}.]".replace("Are you the monster|", "I am sorry to bother you|"))
        s("[F/kind:{I am not a monster|Do not be afraid}. I am just <F.n>, {a <F.kind>|and I am a <F.kind>}. {I am too shy to come out|Everyone is afraid of me, so I stay here}.]")
        s("[H/happy:{Come out and play|You are not scary at all}! {I will show you the reef|I will be your friend}.]")
        s.p("<F> came out {slowly|with a smile}. When the others saw them {playing|laughing} together, they were not afraid anymore.")
        closing(s, "<H> learned that {you should find out for yourself before you are afraid|a scary place can hide a new friend}.")
    else:
        s.p("<day>, <H> {swam|went} up and up, until <H.he> saw the {bright |}sun {for the first time|over the waves}. [H/happy:{How beautiful|It is so bright}!]")
        s("There <H.he> met <F.a>. [F/ask:{Are you new here|What are you looking for}?] [H/answer:I want to see {everything|the whole world}.]")
        s("<F> showed <H.him> the {birds|boats}, the {beach|island} and the {clouds|children on the shore}. They saw {a rainbow|the sunset}, and the whole sea turned {gold|pink}.")
        s("Then a {big|dark} wave came and {pushed <H.him> far away|carried them away}. <H> was {afraid|scared}. [F/kind:{Stay close to me|Follow me}. I know the way.]")
        s.p("Together they swam home. <H.s> family was {waiting|so glad to see <H.him>}. [H/happy:The world is big and beautiful, but home is best.]")
        closing(s, "<H> and <F> went to see the sunset every {week|evening}.", "<H> learned that it is good to explore, and good to come home.")


def plot_day(s):
    """A simple happy outing with a small turn; short."""
    h = hero(s, 0.75, 0.22)
    f = friend(s, "F") if s.chance(0.5) else parent(s, "F")
    s.v.update(place=s.pick("the park", "the beach", "the farm", "the zoo", "the lake", "the market", "the woods", "the playground", "the hill", "the river") if h.human else s.pick("the beach", "the farm", "the lake", "the woods", "the hill", "the river", "the meadow"))
    acts = {"the park": ["played on the swing", "went down the slide", "fed the ducks", "rolled in the grass"], "the beach": ["built a big sandcastle", "looked for shells", "jumped over the waves", "chased the crabs"],
            "the farm": ["saw the pigs in the mud", "fed the chickens", "watched the cows", "picked apples"], "the zoo": ["saw a tall giraffe", "watched the monkeys swing", "heard the lion roar", "laughed at the penguins"],
            "the lake": ["threw stones into the water", "sat in a little boat", "saw a silver fish jump", "fed the ducks"], "the market": ["smelled the fresh bread", "looked at all the colors", "tasted a sweet orange", "listened to a man with a guitar"],
            "the woods": ["climbed over logs", "collected pretty leaves", "listened to the birds", "found a ring of mushrooms"], "the playground": ["played tag", "climbed up the ladder", "made a tower in the sand", "went down the slide"],
            "the hill": ["rolled down the hill", "flew a kite", "looked at the clouds", "picked yellow flowers"], "the river": ["skipped stones", "made a paper boat", "put their feet in the water", "watched a frog jump"], "the meadow": ["danced with the butterflies", "picked flowers", "played hide and seek", "lay in the tall grass"]}
    a = s.some(acts[s.v["place"]], 3)
    s.v.update(a1=a[0], a2=a[1], a3=a[2], snack=s.pick("sandwiches", "apples", "cookies", "cheese and bread", "cake", "berries", "ice cream" if h.human else "nuts"))
    opening(s, "loved to go to <place>", "liked sunny days", "was excited", "could not wait to go to <place>")
    s.p("<day>, <H> and <F> went to <place>. <air>", "[F/happy:Let's go to <place>!] [H/happy:{Hooray|Yes, yes}!] So <H> and <F> went there together.")
    s("First, they <a1>. Then they <a2>.", "They <a1> and <a2>.", "They <a1>. After that, they <a2>. It was so much fun.")
    turn = s.pick("bird", "rain", "lost", "fall", "new")
    if turn == "bird":
        s.p("When they {sat down to eat|were hungry}, they opened the basket with the <snack>. But a cheeky {bird|squirrel|duck} {took|stole} a piece and ran away!".replace("ran away", "was gone"))
        s("At first, <H> was {angry|upset}. Then <F> began to laugh, and <H> laughed, too. [F/kind:{Maybe it was hungry|There is enough for all of us}.]")
    elif turn == "rain":
        s.p("{Suddenly|Then}, dark clouds came, and it {began|started} to rain. [H/sad:{Oh no! Our day is ruined|Now we have to go home}.]")
        s("[F/happy:{Look at the puddles|Rain can be fun, too}! Let's jump!] They jumped and splashed until they were {wet|wet from head to toe}. When the sun came back, there was a {big |}rainbow.")
    elif turn == "lost":
        s.p("{Then|But then}, <H> looked around. Where was <F>? [H/cry:{Hello|<F.voc>}! Where are you?]")
        s("<H> {stayed where <H.he> was|did not run around} and {waited|called again}. Soon, <F> came back. [F/kind:{I am here|Here I am}! {I was only behind the tree|I went to get some <snack>}.]")
    elif turn == "fall":
        s.p("{Then|Suddenly}, <H> {tripped|fell} and hurt <H.his> {knee|leg}. <H.he> {began to cry|wanted to cry}.")
        s("<F> {blew on it|put a leaf on it} and said, \"{It will be better soon|You are very brave}.\" {They sat together|They shared some <snack>} until it did not hurt anymore.")
    else:
        s.p("{Then|Soon}, they {saw|met} a {little|lonely} {boy|girl} who was {sitting|standing} alone. [H/ask:Do you want to play with us?]" if h.human else "{Then|Soon}, they {saw|met} a little duck who was sitting alone. [H/ask:Do you want to play with us?]")
        s("{The child|The little one} {smiled|nodded}. Now there were three of them, and {the games were even better|everything was more fun}.")
    s.p("Before they went home, they <a3>.", "In the evening, they were {tired|tired but happy}. They went home {hand in hand|together}." if h.human else "In the evening, they were tired, and they went home together.")
    s("[H/happy:{This was the best day|Can we come back tomorrow|I had so much fun}!]".replace("Can we come back tomorrow|", ""), "[H/ask:Can we come {back|here} again?] [F/happy:{Of course|Yes, very soon}!]")
    closing(s, "", "<H> {dreamed about|thought about} it all night.", "It had been a {wonderful|perfect} day.")


def plot_build(s):
    """A big idea is built, fails, is improved with someone else's idea."""
    h = hero(s, 0.6, 0.36)
    friend(s, "F")
    k = s.pick(("treehouse", "the wind shook it and it fell down", "use strong rope", "from up there they could see the whole {valley|town}"), ("boat", "it filled with water and sank", "put wax on the wood", "it floated across the {pond|lake}"),
               ("snowman", "the sun came out and it began to melt", "build it in the shade", "it stood tall for the whole winter"), ("sandcastle", "a wave came and washed it away", "build it farther from the sea", "it had {four towers|a real little flag}"),
               ("kite", "it did not fly at all", "give it a longer tail", "it danced high in the sky"), ("tower of blocks", "it wobbled and crashed", "put the big blocks at the bottom", "it was taller than <H>"),
               ("rocket out of boxes", "it fell apart", "use more tape", "they flew all the way to the moon, or so it felt"), ("bridge over the stream", "it broke with a loud crack", "put a big stone in the middle", "everyone could cross the stream"),
               ("bird house", "no bird came to live in it", "hang it high in a quiet tree", "a family of birds moved in"), ("wagon", "one wheel rolled away", "fix the wheels with a strong pin", "it carried both of them down the hill"),
               ("raft", "it turned around and around", "make a long paddle", "they sailed down the river"), ("scarecrow", "the crows only laughed at it", "give it a hat with little bells", "no crow came near the corn again"))
    s.v.update(it=k[0], bad=k[1], idea=k[2], good=k[3])
    opening(s, "loved to build things", "always had big ideas", "was good at making things", "liked to work with <H.his> <H.paws>")
    s.p("<day>, <H> {had an idea|got a great idea}. [H/happy:I will build a <it>!]", "<day>, <H> wanted to build a <it>.")
    s("<H.he> worked {all morning|for hours}. <H.s> friend <F.n> came by. [F/ask:{Can I help|Do you need help}?] [H/answer:{No, I can do it alone|No, thank you. I don't need any help}.]", "<F.n>, <H.his> friend, wanted to help. But <H> said, \"No, I want to do it {alone|all by myself}.\"")
    s("{At last|Finally}, the <it> was {ready|done}. But {then|soon}, <bad>.", "When it was done, <H> was proud. But then <bad>.")
    s(*FEEL_BAD)
    s("[H/sad:All {my|that} work for nothing.]", "")
    s.p("<F> {came back|sat down beside <H.him>}. [F/kind:{It was a good try|Don't be sad}. {Maybe we could|What if we} <idea>?]".replace("?]", "?]"), "[F/kind:{May I say something|I have an idea}. We {could|can} <idea>.]".replace("{May I say something|I have an idea}", "I have an idea"))
    s("<H> {thought about it|looked up}. [H/happy:{That is a great idea|You are so clever}! {Let's do it together|Will you help me}.]".replace("|Will you help me", ""), "<H> felt {sorry|a little sorry} that <H.he> had said no before. [H/sorry:{You were right|I'm sorry}. I do need your help.]")
    s("They worked {side by side|together}. <H> {held|carried} the heavy parts, and <F> {did the rest|tied the knots}.", "This time they did it together, and they {laughed and sang|talked and laughed} while they worked.")
    s("And this time, it worked! <good>.", "When they were done, <good>!")
    s.p()
    closing(s, "<H> learned that {two heads are better than one|it is okay to ask for help|things are better when we do them together|a mistake can be the start of something better}.", "From then on, <H> and <F> built {everything|all their big ideas} together.")


PLOTS = [(plot_lost, 1.2), (plot_learn, 1.2), (plot_rescue, 1.3), (plot_share, 1.0), (plot_warning, 1.0), (plot_fear, 0.9), (plot_newfriend, 1.1), (plot_gift, 0.9), (plot_mystery, 0.9), (plot_truth, 0.7),
         (plot_wish, 0.8), (plot_race, 0.8), (plot_garden, 0.7), (plot_grump, 0.9), (plot_lostway, 0.8), (plot_small, 0.8), (plot_night, 0.7), (plot_weather, 0.6), (plot_trade, 0.5), (plot_pet, 0.8),
         (plot_quest, 0.9), (plot_sea, 0.9), (plot_day, 0.9), (plot_build, 0.9)]


# ---------------------------------------------------------------- more plots

FINDS = [("an old map", "It showed a red cross near {a big tree|the old well}", "followed the map and dug a hole with a stick", "a small chest full of {shiny coins|glass beads|old toys}", "share the treasure with everyone"),
         ("a tiny key", "It was rusty and had a star on it", "tried the key in every door", "a little garden behind the last door, full of {roses|butterflies}", "take care of the garden together"),
         ("a bottle with a message inside", "The message said, \"{Please write to me. I am lonely|Hello from far away}\"", "wrote a letter back and drew a picture", "a new friend on the other side of the {lake|sea}", "write a letter every week"),
         ("a huge box", "It was empty, and it was bigger than both of them", "cut a door and two windows into it", "the best {house|rocket|castle} in the world", "play in it every day"),
         ("a lost phone", "It rang and rang", "answered it, and a worried lady spoke to them", "that the lady had been looking for it all day", "always give back what they found"),
         ("a purse on the ground", "There was money inside", "took it to a police officer", "that it belonged to an old man, who was very relieved", "be honest, even when nobody is watching"),
         ("a round seed", "It was as black as coal", "planted it in a pot and gave it water", "a tall plant with purple flowers", "save the seeds for their friends"),
         ("a magnifying glass", "It made everything look big", "looked at ants, leaves and their own fingers", "a caterpillar that was turning into a butterfly", "look closely at small things"),
         ("a torn kite", "It was caught in a bush", "sewed it with a needle and some thread", "that it flew even higher than a new one", "fix things before they threw them away"),
         ("a crying baby bird", "It had fallen out of its nest", "asked a tall man with a ladder for help", "that the mother bird was waiting in the tree", "be gentle with small animals"),
         ("a strange machine", "It had a big button and a long pipe", "pushed the button together", "that it filled the whole yard with bubbles", "be careful with buttons, but laugh a lot"),
         ("an old drum", "It was dusty, but it was not broken", "cleaned it with a cloth and began to play", "that all the neighbors came out to dance", "make music every Sunday")]


def plot_pair(s):
    """Two children find a thing."""
    h = make_kid(s)
    s.put("H", h)
    f = s.put("F", make_kid(s, avoid=(h.name,)))
    k = s.pick(FINDS)
    s.v.update(find=k[0], look=k[1], do=k[2], get=s.x(k[3]), learn=k[4], place=s.pick("in the park", "in the garden", "at the beach", "in the woods", "behind the school", "in the attic", "near the pond", "in the backyard"),
               rel=s.pick("friends", "good friends", "best friends", "brother and sister" if h.gender != f.gender else "friends", "twins", "neighbors"))
    s("<H.n> and <F.n> were <rel>. They liked to {play|explore|have fun} together.", "Once upon a time, there were two <rel>, <H.n> and <F.n>." if s.v["rel"] != "brother and sister" else "Once upon a time, there were a brother and a sister, <H.n> and <F.n>.", "<H.n> and <F.n> liked to play <place>. They were <rel>.",
      "Once, <H.n> and <F.n> were playing <place>. They were <rel>.")
    s.p("<day>, they found <find> <place>. <look>.", "<day>, <F> saw something {strange|unusual} <place>. It was <find>! <look>.", "<day>, <H> shouted, \"{Look|Come here|Look what I found}!\" It was <find>. <look>.")
    s("[F/ask:{What is it|What should we do with it|Is it ours}?] [H/answer:{I don't know, but I have a plan|Let's find out|Let's see what happens}.]", "[F/happy:{Wow|How interesting}! Let's {show Mom|try something}.] {But first|And then} [H/say:{Wait. I have a plan|I know what to do}.]".replace("{But first|And then} ", ""))
    s("At first, they {wanted to fight about it|could not agree}, but then they decided to do it together.", "<H> was {nervous|a bit nervous}, but <F> was {eager|excited}.", "")
    s.p("So they <do>.", "They thought about it, and then they <do>.")
    s("It {took a long time|was not easy}, but they did not give up.", "<H> helped <F>, and <F> helped <H>.", "")
    s("And what did they find? <get>!" if not k[3].startswith("that") else "Soon they found out <get>.", "In the end, they found <get>." if not k[3].startswith("that") else "In the end, they found out <get>.")
    s("[H/happy:{This is amazing|I can't believe it|We did it}!] [F/happy:{We are a great team|Hooray|What a day}!]", "They were {delighted|so excited|very proud}.")
    s.p("Their {parents|moms|grandparents} were {proud|impressed|happy} when they heard about it.", "They told their {parents about it at dinner|teacher about it at school}.", "")
    s("From that day on, they {decided|wanted|promised} to <learn>.", "<H> and <F> learned to <learn>.")
    s("The end.", "It was a day to remember.", "")


JOBS = [("baker", "bakery", "the big oven stopped working", "built a fire outside and baked the bread on hot stones", "bread"), ("painter", "workshop", "all the blue paint spilled on the floor", "painted a beautiful sea with the spilled paint", "a picture"),
        ("bus driver", "bus", "a herd of sheep stood on the road", "played a song on a whistle, and the sheep walked away", "a ride"), ("doctor", "hospital", "a little boy was too scared to take his medicine", "told a funny story until he laughed and drank it", "a kind word"),
        ("captain", "ship", "thick fog came and nobody could see the land", "rang a bell and listened for the sound of the shore", "a safe trip"), ("firefighter", "fire station", "a kitten was stuck on the roof of a tall house", "put a bowl of milk at the top of the ladder and waited", "help"),
        ("farmer", "farm", "all the chickens ran out of the gate", "walked slowly with a bag of corn, and the chickens followed", "eggs"), ("teacher", "school", "the children were too loud to learn", "began to whisper, so that everyone had to listen", "a lesson"),
        ("cook", "kitchen", "there was too much salt in the soup", "added potatoes and milk until it was tasty again", "soup"), ("barber", "shop", "a man with very messy hair was in a hurry", "washed and brushed his hair and cut it in two minutes", "a new look"),
        ("gardener", "garden", "hungry bugs were eating all the leaves", "brought a family of ladybugs to the garden", "flowers"), ("mail carrier", "post office", "the wind blew all the letters away", "asked the birds and the children to catch them", "letters")]


def plot_job(s):
    hero(s, 0.8, 0.14)
    k = s.pick(JOBS)
    s.v.update(job=k[0], shop=k[1], bad=k[2], fix=k[3], gave=k[4])
    s.put("B", Char("old " + k[0] if s.chance(0.5) else k[0], s.pick("m", "f"), None, "", False, paws="hands", go="walked"))
    opening(s, "wanted to be a <job>", "dreamed of being a <job> {one day|some day}", "loved to watch the <job> at work")
    s.p("<day>, <H> went to the <shop>. [H/ask:{Can|May} I help you today?] [B/kind:{Of course|Yes, you can}. {But it is hard work|I can use some help}.]", "<day>, the <job> said, \"I {need a helper|need help} today. Would you like to come with me?\" [H/happy:{Yes, please|I would love to}!]")
    s("<H> worked hard. <H.he> {swept the floor|carried boxes|cleaned the tools} and {listened|watched} carefully.", "At first, <H> was clumsy and made a few mistakes, but the <job> was patient.")
    s.p("{Suddenly|Then|But at noon}, there was a problem. <bad>! {Nobody knew what to do|Even the <job> was worried}.")
    s("[B/sad:{Oh no|Oh dear}! What can we do now?]", "<H> {thought hard|looked around|took a deep breath}.")
    s("[H/happy:I have {an idea|a plan}!] <H> <fix>.", "Then <H> had a {clever|brilliant} idea. <H.he> <fix>.")
    s("It worked! Everyone {clapped|cheered|was impressed}.", "Soon, everything was {fine|all right} again.")
    s.p("[B/happy:{You are very smart|Well done|What a clever idea}! You will be a great <job> one day.]", "The <job> gave <H> {a real hat|a special badge|a shiny coin}. [B/kind:You saved the day.]")
    closing(s, "<H> was {very proud|so proud} and told everyone about it.", "<H> learned that {hard work and a good idea can fix many things|it is good to stay calm when there is a problem}.")


def plot_jealous(s):
    h = make_kid(s)
    s.put("H", h)
    parent(s)
    k = s.pick(("baby brother", "the new baby", "m"), ("baby sister", "the new baby", "f"), ("new puppy", "the puppy", "m"), ("cousin", "the cousin", "f"))
    s.put("B", Char(k[0], k[2], None, "", True))
    s.v.update(baby=k[0], love=s.pick("the big blue blanket", "the old teddy bear", "the best toy car", "the music box"), fun=s.pick("a funny face", "a silly dance", "a tower of blocks", "a song"))
    opening(s, "was {the only child|the only one} at home", "liked it when everyone looked at <H.him>", "had a happy life with <P>")
    s.p("<day>, everything changed. There was a <baby> in the house. Everyone {came to see|talked about|smiled at} <B.him> all day long.", "Then <P> brought home a <baby>. Everybody {gave gifts|brought presents} and said how cute <B.he> was.")
    s("Nobody had time for <H>. <H> felt {jealous|left out|lonely}. [H/sad:{They don't love me anymore|Why does nobody play with me?|I wish things were like before}.]".replace("me?|", "me|"), "<H> was jealous. <H.he> {hid in the closet|would not eat dinner|slammed the door}.")
    s.p("<P> {sat down on the bed|found <H.him>}. [P/kind:{I love you just as much as before|There is enough love in my heart for both of you|You are very special to me}. {And I need your help|<B.he> needs you, too}.]")
    s("[H/ask:Me? What can I do?] [P/kind:You can {make <B.him> smile|teach <B.him> to play}. Nobody else can do it like you.]", "<H> wiped away a tear and {nodded|came out}.")
    s("So <H> made <fun>. The <baby> looked at <H.him> with big eyes and {laughed|smiled for the first time|clapped}!" if "puppy" not in k[0] else "So <H> made <fun>. The puppy looked at <H.him> with big eyes and wagged his tail!", "<H> went closer and gave <B.him> <love>. The <baby> {held on to <H.his> finger|came close and fell asleep}.")
    s.p("<H> felt warm inside. [H/happy:{I think <B.he> likes me|We will be best friends}!]", "[H/happy:{Look! I made <B.him> happy|I will always take care of you}!]")
    closing(s, "<H> learned that {love gets bigger when you share it|there is enough love for everyone}.", "From that day on, <H> was not jealous anymore.")


def plot_messy(s):
    h = make_kid(s)
    s.put("H", h)
    parent(s)
    s.v.update(lost=s.pick("favorite shoes", "new crayons", "swimming suit", "ticket for the circus", "homework", "football", "red jacket", "library book"), event=s.pick("the parade", "a birthday party", "the beach", "school", "the circus", "a big match", "a trip to the zoo"),
               mess=s.pick("clothes on the floor, toys under the bed and crumbs on the desk", "socks on the lamp and blocks all over the floor", "dirty plates, books and toys everywhere"))
    opening(s, "was clever, but very messy", "never cleaned <H.his> room", "did not like to tidy up")
    s("There were <mess>.", "<P> said, \"Please clean your room, <H.voc>.\" But <H> always said, \"{Later|Tomorrow|Not now}.\"")
    s.p("<day>, it was time to go to <event>. But <H> could not find <H.his> <lost>!", "<day>, <H> was excited because of <event>. {Then|But then} <H.he> saw that <H.his> <lost> {was|was} gone.".replace("{was|was} gone", "could not be found"))
    s("<H.he> looked under the pillows and behind the {couch|chair}. There was too much stuff! [H/cry:{Where can it be|I will be late}!]".replace("Where can it be|", ""), "<H.he> searched and searched, and the mess got even bigger. [H/sad:I can't find anything.]")
    s("[P/kind:{Maybe you will find it if you clean up|Let's start with one corner|One thing at a time}.]")
    s.p("So <H> {put the toys in the box|picked up the clothes}. Then <H.he> put the books on the shelf and the {laundry|trash} in the basket.", "<H> {sighed|was frustrated}, but <H.he> began. First the toys, then the books, then the clothes.")
    s("{At last|Finally}, at the very bottom, there {was|was} the thing <H.he> had been looking for!".replace("{was|was}", "was"), "And there, under the last {sock|towel|blanket}, <H.he> found it!")
    s("[H/happy:{I found it|Here it is}! And look, my room is so {big|nice} now!]", "The room {looked wonderful|was clean}, and there was even space to {dance|play}.")
    s.p("<H> was {just in time|only a little late} for <event>, and it was {great|so much fun}.")
    closing(s, "From that day on, <H> {cleaned up|put things away} every evening.", "<H> learned that {when things have a place, you can find them|it is better to clean up a little every day}.")


def plot_doctor(s):
    h = hero(s, 0.8, 0.2)
    parent(s)
    k = s.pick(("a bad cough", "the doctor", "drink a spoon of medicine", "it tasted like cherries"), ("a sore tooth", "the dentist", "open wide", "it only tickled a little"), ("a broken arm" if h.human else "a broken leg", "the hospital doctor", "hold very still", "it was over before <H.he> could count to ten"),
               ("a high fever", "the nurse", "stay in bed and rest", "it was nice to hear stories all day"), ("a splinter in the foot", "the kind nurse", "look at the picture on the wall", "it was gone in a second"), ("red spots all over", "the doctor", "wear a green cream", "it made <H.him> look like a frog, and everyone laughed"))
    s.v.update(ill=k[0], doc=k[1], must=k[2], truth=k[3])
    opening(s, "was always full of energy", "was never sick", "was scared of doctors", "loved to run around")
    s.p("<day>, <H> woke up with <ill>. [H/sad:{I don't feel good|It hurts}, <P.voc>.]" if "broken" not in k[0] and "splinter" not in k[0] else "<day>, <H> fell {while playing|near the steps} and got <ill>. [H/cry:{Ouch|It hurts}!]")
    s("[P/kind:{Poor dear|Oh, my dear}. We {must|need to} go to see <doc>.] [H/scared:{No, I don't want to|I am scared|Will it hurt me}.]".replace("|Will it hurt me", ""))
    s.p("<doc> {smiled|had a warm smile and a funny hat}. \"{Hello|Good morning}, <H.voc>. {Do not be nervous|You look very brave}. You only have to <must>,\" said <doc>.")
    s("<H> {held <P.s> hand|closed <H.his> eyes} and was brave.", "<H> was nervous, but <H.he> did it.")
    s("And do you know what? <truth>!", "To <H.his> surprise, <truth>.")
    s.p("{After a few days|Soon|The next week}, <H> {was healthy again|felt much better} and could {run and jump|play outside} again.", "<doc> gave <H.him> {a sticker with a star|a small toy|a balloon} for being so brave.")
    closing(s, "<H> learned that {doctors help us feel better|it is okay to be nervous, and brave at the same time}.", "[H/happy:{I am not scared anymore|That was easy}!]")


def plot_selfish(s):
    h = s.put("H", Char(s.pick("king", "queen", "rich man", "prince", "princess", "squirrel", "crow", "bear", "dragon"), "m", None, s.pick("selfish", "greedy", "proud"), False, home=s.pick("in a big castle", "in a large house", "on a hill"), go="walked", paws="hands"))
    h.gender = "f" if h.kind in ("queen", "princess") else s.pick("m", "f") if h.kind in ("squirrel", "crow", "bear", "dragon") else "m"
    if h.kind in ("squirrel", "crow", "bear", "dragon"):
        h.attr["home"] = s.pick("in a big tree", "in a warm cave", "on a high hill")
    helper(s, "F")
    s.v.update(stuff=s.pick("gold", "apples", "honey", "bread and cheese", "nuts", "firewood", "sweet cakes"), winter=s.pick("a cold winter", "a long dry summer", "a terrible storm", "a year without rain"),
               bad=s.pick("a fire burned it all", "thieves came in the night and took it", "a flood carried it away", "mice ate everything", "the roof fell in and covered it with snow"))
    s("Once upon a time, there was <H.ak> who lived <H.home>. <H.he> had a lot of <stuff>, but <H.he> never shared.", "Once there was <H.ak>. <H.he> had more <stuff> than anyone else, and <H.he> kept it all.", "Long ago, <H.ak> lived <H.home> with a room full of <stuff>.")
    s("Every day, <H.he> counted it and {smiled|locked the door}. [H/say:It is all mine, and {nobody else may have it|I will never give it away}.]")
    s.p("{Then|One day}, there was <winter>. The others had nothing {left |}to eat. <F.ak> came to the door. [F/ask:Please, can you {help us|give us a little}?]", "When <winter> came, <F.ak> knocked on the door. [F/sad:{We are so hungry and cold|My family needs help}. Please share with us.]")
    s("[H/angry:{No|Go away}! {It is mine|Find your own}.]", "But <H> {only laughed|closed the door}. [H/say:That is not my problem.]")
    s.p("That night, <bad>. In the morning, there was nothing left. <H> {sat down and cried|was poor and alone}.", "A few days later, <bad>. Now <H> had nothing at all.")
    s("[H/sad:{Who will help me now|What have I done}?] {Nobody came. Then|After a while,} there was a knock. It was the <F.kind>.".replace(",}", "}"), "<H> was too ashamed to ask for help. But then the <F.kind> came.")
    s("[F/kind:{You can eat with us|We do not have much, but we will share it with you|Come and sit by our fire}.] [H/ask:Why are you {kind|so nice} to me? I did not help you.] [F/wise:{Because it is the right thing to do|Because you need help, just like we did}.]")
    s.p("<H> {felt ashamed|was very sorry}. [H/sorry:I was selfish. I will never be like that again.]")
    s("When better days came, <H> {opened the door for everyone|shared everything with the others} and {had many friends|was never lonely again}.")
    closing(s, "<H> learned that {sharing makes you richer than gold|it is better to be generous than rich}.", "And everyone respected the once <H.adj> <H.kind>.")


SADS = [("had lost <H.his> voice", "sang very softly until the voice came back"), ("did not know how to {fly|dance|swim}", "held <H.his> <H.paws> and showed the first steps"), ("nobody remembered <H.his> birthday", "made a small cake with one candle"),
        ("<H.his> best friend had moved away", "wrote a letter to the friend with <H.him>"), ("<H.he> could not make anyone laugh", "told <H.him> the silliest joke in the world"), ("<H.he> was too big to {play hide and seek|fit in the boat}", "made up a game where being big was best"),
        ("<H.he> had broken something special", "fixed it with glue and a ribbon"), ("it had been raining for a whole week", "made paper boats, and they had a race in the puddles"), ("<H.he> thought that <H.he> was ugly", "showed <H.him> how beautiful <H.his> reflection was in the lake"),
        ("everyone was afraid of <H.him>", "sat down next to <H.him> and was not afraid at all"), ("<H.his> favorite tree had lost all its leaves", "hung paper hearts on the branches"), ("<H.he> missed <H.his> {mother|grandma}", "looked at the stars with <H.him> and told <H.him> that she was looking at them, too")]


def plot_sad(s):
    h = hero(s, 0.25, 0.4)
    k = s.pick(SADS)
    s.v.update(why=k[0], cure=k[1])
    friend(s, "F")
    helper(s, "A")
    helper(s, "B")
    s.v["kindly"] = "the " + h.kind if not h.human else h.name
    if h.human or s.chance(0.4):
        opening(s, "was sad. <H.he> did not smile anymore", "used to laugh all day", "had not smiled for a long time")
        s("<H> was sad because <why>." if not k[0].startswith(("had", "did")) else "<H> was sad because <H.he> <why>.")
    else:
        s(("The <H.kind> was sad because " if s.chance(0.6) else "There was <H.ak> who was very sad because ") + ("<H.he> <why>." if k[0].startswith(("had", "did")) else "<why>."))
        if h.name:
            s("{<H.his> name was <H.n>.|The <H.kind> was called <H.n>.}")
    s("<H.he> {sat alone|lay in bed|looked out at the rain} and {sighed|did not want to talk to anyone}.")
    s.p("<A.ak> tried to {help|cheer <H.him> up}. The <A.kind> {told a joke|danced in circles|brought a flower}, but <H> {did not smile|only sighed}.", "First came <A.ak>. [A/kind:{Do not be sad|Cheer up}!] But that did not help.")
    s("Then <B.ak> {came|tried}. The <B.kind> {sang a song|made a funny face|brought something sweet}. But it did not help.", "Next, <B.ak> gave <H.him> a {shiny stone|red apple|blue feather}. <H> said thank you, but <H.he> was still sad.")
    s.p("At last, <F.n> came. <F> did not {say anything|joke} at first. <F.he> {just |}sat down and asked, \"{What is wrong|Why are you so sad|Do you want to tell me about it}?\"")
    s("<H> told <F.him> everything. <F> listened {carefully|until the end}.", "Nobody had asked that before. <H> told <F> {all about it|the whole story}.")
    s("Then <F> <cure>.", "<F> {thought|nodded}. And then <F.he> <cure>.")
    s("{Little by little|Slowly}, a smile came back to <H.s> face.", "<H> began to smile, and then <H.he> laughed out loud.")
    s("[H/happy:{Thank you for listening|I feel so much better|You are a true friend}!]")
    s.p()
    closing(s, "<H> learned that {it helps to talk about your feelings|a good friend listens}.", "Sometimes, the best way to help is {to listen|just to be there}.")


def plot_boydog(s):
    h = make_kid(s)
    s.put("H", h)
    kind = s.pick("dog", "dog", "puppy", "cat", "pony", "parrot")
    g = s.pick("m", "f")
    d = s.put("D", Char(kind, g, s.pick([n for n in (PET_M if g == "m" else PET_F) if n != h.name]), s.pick("big", "small", "brown", "happy", "clever", "fluffy"), False, go="ran", paws="paws"))
    s.v.update(place=s.pick("the beach", "the park", "the woods", "the lake", "the hill", "the river", "the market"), sound=dict(dog="barked", puppy="barked", cat="meowed", pony="neighed", parrot="called")[kind])
    s("<H.n> and <H.his> <D.kind> went to <place>.", "<H.n> had <D.a>. They went everywhere together.", "Once upon a time, there was a <H.boy> named <H.n> who had a <D.kind>. The <D.kind> was called <D.n>.", "<H.n> loved <H.his> <D.kind>, <D.n>.")
    s("The <D.kind> was <D.adj> and {very playful|always hungry|full of fun}.", "<D.n> liked to {chase|play with} {leaves|balls|sticks}.", "")
    s.p("<day>, they {played|ran around} at <place>. <air>" if s.v["place"] not in ("the hill", "the woods") else "<day>, they played together on the way to <place>. <air>")
    k = s.pick("treasure", "save", "lost", "thief", "friend")
    if k == "treasure":
        s("Suddenly, <D.n> {began to dig|scratched the ground}. <D.he> <sound> and <sound>. [H/ask:What is it, <D.n>?] <H> helped to dig, and they found {an old box|a wooden chest|a rusty tin}.")
        s.p("Inside, there {were|was} {a silver whistle|a gold coin|an old letter|a ring with a green gem}.".replace("{were|was}", "was"), "When <H> opened it, <H.he> found a {shiny|beautiful} ring.")
        s("[H/happy:{Wow|We found treasure}!] They {showed it to|took it to} an old woman who lived nearby. She began to cry with joy. \"I lost this when I was a little girl,\" she said. \"Thank you both.\"")
        closing(s, "As a reward, <D.n> got {a big bone|a tasty treat} and <H> got a {hug|slice of cake}." if kind in ("dog", "puppy") else "As a reward, <D.n> got a tasty treat and <H> got a slice of cake.")
    elif k == "save":
        s("Then <H> slipped and fell {into a deep hole|into the mud}. <H.he> could not get out. [H/cry:{Help|<D.n>, get help}!]")
        s.p("<D.n> {ran as fast as <D.he> could|did not wait}. <D.he> found {a farmer|<H.his> dad|a strong woman} and <sound> until {the farmer|Dad|she} followed.".replace("{a farmer|<H.his> dad|a strong woman}", "a farmer").replace("{the farmer|Dad|she}", "the farmer"))
        s("The farmer pulled <H> out with a rope. <H> {hugged <D.n>|put <H.his> arms around <D.n>}. [H/happy:You saved me! You are the {best|smartest} <D.kind> in the world!]")
        closing(s, "That night, <D.n> slept at the end of <H.s> bed.", "<H> never forgot what <H.his> friend had done.")
    elif k == "lost":
        s("But then <D.n> {saw a rabbit|heard a strange noise} and ran away. [H/cry:<D.n>! Come back!] But <D.he> was gone.")
        s.p("<H> looked everywhere. <H.he> asked {a lady with a red hat|the man who sold ice cream|two girls on a bench}, but nobody had seen <D.him>. <H> sat down and cried.")
        s("Then <H.he> felt something {wet|soft} on <H.his> {hand|cheek}. It was <D.n>! [H/happy:{There you are|I missed you so much}! Never run away again.] <D.n> <sound> happily.")
        closing(s, "They walked home together, and <H> did not let go.", "<H> was so relieved.")
    elif k == "thief":
        s("They sat down to eat, but the sandwiches were gone! [H/ask:<D.n>, did you eat them?] <D.n> looked {sad|innocent} and shook <D.his> head.")
        s.p("They followed a trail of crumbs {around the corner|behind a tree}. There sat a {skinny|small} {raccoon|fox|squirrel} with three babies, and they were eating the last piece.")
        s("[H/kind:{They were hungry|Oh, you have a family}. It's okay.] <H> hugged <D.n>. [H/sorry:I'm sorry I blamed you.]")
        closing(s, "<H> learned that {you should not blame someone before you know the truth|it is important to trust your friends}.")
    else:
        s("There they saw a {girl|boy} who {sat alone on a bench|looked very lonely}. <D.n> ran to the child and put a {stick|ball} down at the child's feet.")
        s.p("The child looked up and {smiled|laughed}. \"Is this your <D.kind>? {I always wanted one|Can I play with you}?\"".replace("{I always wanted one|Can I play with you}", "Can I play with you"))
        s("[H/happy:{Of course|Sure}! {<D.he> likes you|We need one more player}.] The three of them played until the sun went down.")
        closing(s, "Thanks to <D.n>, <H> had {made a new friend|found a friend}.")


def plot_robot(s):
    name = s.pick("Beep", "Zip", "Bolt", "Chip", "Dot", "Rivet", "Spark", "Tik", "Buzz", "Bob", "Pixel", "Gizmo")
    h = s.put("H", Char("robot", s.pick("m", "m", "f", "n"), name if s.chance(0.85) else None, s.pick("little", "small", "shiny", "old", "rusty", "kind"), False, home=s.pick("in a workshop", "in a big factory", "in a quiet house", "in a city of metal"), go="rolled", paws="hands"))
    k = s.pick(("know what flowers smell like", "a girl", "put a rose in the robot's metal hand and told what it smelled like: honey, rain and summer", "could not smell it, but felt something warm inside"),
               ("make a friend", "a mouse", "asked if it could live in the robot's empty arm box, where it was warm", "was not alone anymore, and neither was the mouse"), ("learn to dance", "an old man", "turned on the radio and showed one slow step after another", "danced so well that sparks flew"),
               ("see the stars", "a boy", "opened the roof of the workshop", "looked up for the whole night and gave every star a name"), ("paint a picture", "a painter", "gave it a brush and said that there was no wrong way to paint", "painted a yellow sun with a smile"),
               ("have a heart", "a little girl", "cut a heart out of red paper and glued it on", "knew that it had been kind all along"), ("help people", "a woman with heavy bags", "let it carry the bags up all the stairs", "felt so useful that its lights turned green"))
    s.v.update(want=k[0], did=k[2], felt=k[3])
    s.put("G", Char(k[1].split(" ", 1)[1].split(" with")[0], "f" if "girl" in k[1] or "woman" in k[1] else "m", None, "", False, paws="hands", go="walked"))
    s.v["ga"] = k[1]
    s("Once upon a time, there was <H.a> who wanted to <want>.", "There was <H.ak> who wanted to <want>." + (" <H.his> name was <H.n>." if h.name else ""), "Once there was <H.a>. <H.he> lived <H.home> and wanted to <want>.", "In a place full of machines, there was <H.a>. More than anything, <H.he> wanted to <want>.")
    s("All day long, <H.he> {cleaned the floor|carried boxes|counted screws}. The other machines said, \"{Robots cannot do that|You are only a machine|That is silly}.\"", "[H/say:I know how to {count|lift|clean}, but I do not know how to <want>.]")
    s.p("<day>, <H> {met|saw} <ga>. [H/ask:{Hello|Beep! Hello}. Can you help me? I want to <want>.]", "<day>, <H> left the house and rolled down the street, where <H.he> met <ga>.")
    s("The <G.kind> {was surprised|laughed a friendly laugh}. [G/kind:{Why not|Of course|Let's try}.]")
    s("Then the <G.kind> <did>.", "The <G.kind> thought about it. Then the <G.kind> <did>.")
    s("<H> <felt>.", "{For the first time|And so}, <H> <felt>.".replace("{For the first time|And so}", "And so"))
    s.p("[H/happy:{Thank you|Beep, beep! Thank you}! {Now I understand|This is the best day of my life}.]", "<H.s> eyes {glowed|shone} {blue|green|like two little lamps}.")
    closing(s, "The other machines {were amazed|came to watch}. Soon they wanted to try it, too.", "<H> learned that {you can be more than others think|it is good to ask for help|feelings are for everyone}.", "And from then on, <H> visited the <G.kind> every day.")


def plot_winter(s):
    """One works, one plays; winter comes."""
    h = make_animal(s, s.pick("squirrel", "mouse", "beaver", "hedgehog", "mole", "badger"), True)
    s.put("H", h)
    friend(s, "F", like=h)
    s.v.update(food=s.pick("nuts", "seeds", "berries", "apples", "corn"))
    opening(s, "worked hard every day", "always planned ahead", "liked to be ready for everything")
    s("<H> had a friend named <F.n>, who only wanted to {play and sing|sleep in the sun|dance and have fun}.")
    s.p("All summer, <H> {gathered|collected|picked} <food> and {carried|put} them in a safe place. [F/happy:{Come and play|Why do you work so hard}! {The sun is shining|Winter is far away}.]".replace("{Come and play|Why do you work so hard}", "Come and play"), "<day>, <F> laughed at <H.him>. [F/ask:Why do you work all the time?] [H/answer:{Winter will come|Soon it will be cold}, and then there will be no <food>. You should {work, too|get ready, too}.]")
    s("But <F> {did not listen|only laughed|ran off to play}.")
    s.p("Then {winter came|the first snow fell}. The ground was {white|frozen} and there was nothing to eat. <F> was {cold|shivering} and hungry.", "Soon the leaves fell, and the cold wind came. <F> looked for <food>, but there were none left.")
    s("<F> knocked on <H.s> door. [F/sorry:{You were right|I should have listened to you}. {Please, may I come in|Can you give me a little food}?]")
    s("<H> {looked at <F.him>|thought about it}. [H/kind:{Come in and get warm|You are my friend}. There is enough for {two|both of us}. But next year, you will help me.]")
    s("[F/happy:{I promise|Thank you! I will}!]", "All winter long, <F> {sang songs|told stories} by the fire, and <H> was glad to have company.")
    s.p("When summer came again, <F> {kept the promise|worked hard}, and they {finished early|had time to play, too}.")
    closing(s, "{First work, then play|It is good to plan ahead}, and it is even better to do it with a friend.", "<F> learned to {plan ahead|work before it is too late}, and <H> learned to {play a little|have some fun}.")


def plot_trick(s):
    """A small one is cleverer than a hungry big one."""
    h = make_animal(s, s.pick("rabbit", "mouse", "lamb", "squirrel", "duck", "goat", "hedgehog", "monkey", "frog", "turtle", "pig"))
    s.put("H", h)
    s.put("W", Char(s.pick("wolf", "crocodile", "tiger", "snake", "hungry cat", "hawk", "lion", "ogre"), s.pick("m", "m", "f"), None, s.pick("big", "hungry", "big bad", "mean"), False, paws="paws", go="ran"))
    k = s.pick(("I am so thin now. Wait until I have eaten a big lunch, and I will taste much better", "waited and waited, but the little one never came back"), ("before you eat me, let me sing my last song", "listened with closed eyes, and fell asleep"),
               ("there is a much bigger one in the well. Look", "looked into the well, saw a face in the water, jumped in, and got very wet"), ("you must wash your hands before you eat", "went to the river to wash, and when it was done, there was no one there"),
               ("I bet that you cannot fit in that tiny box", "wanted to show it, climbed in, and the lid fell shut"), ("my big brother is right behind you", "turned around to look"), ("if you can guess my riddle, you may eat me. What has a neck but no head", "sat down to think, and is still thinking today. It is a bottle, of course"))
    s.v.update(trick=k[0], result=k[1])
    opening(s, "was small but very clever", "was smarter than the others", "always stayed calm")
    s.p("<day>, <H> was {looking for food|walking home|picking flowers} when <W.ak> jumped out {from behind a tree|of the bushes}. [W/grump:{I am hungry|What a tasty little meal|At last, some lunch}! I am going to eat you.]")
    s("<H> was {scared|afraid}, but <H.he> {did not show it|thought fast}.", "<H.s> heart beat fast. [H/think:I must be clever now.]")
    s("[H/say:{Oh, all right|Please wait}, but <trick>.]" if "What has" not in k[0] else "[H/say:Please wait. If you can guess my riddle, you may eat me. What has a neck but no head?]")
    s("[W/ask:Is that true?] [H/answer:{Of course|It is|I promise}.]" if "riddle" not in k[0] else "[W/grump:That is easy! Let me think.]", "")
    s("The <W.kind> <result>." , "So the {silly |}<W.kind> <result>.")
    s("And <H> ran away as fast as <H.he> could!", "<H> {laughed|giggled} and {ran|hurried} home.")
    s.p("At home, <H> told {everyone|the whole family} about it. They {laughed and laughed|were amazed}.", "")
    closing(s, "You do not have to be big and strong if you are {clever|smart}.", "<H> learned that {a calm head is better than strong teeth|it is good to think before you run}.", "And the <W.kind> never came back.")


PLOTS2 = [(plot_pair, 1.5), (plot_job, 0.8), (plot_jealous, 0.5), (plot_messy, 0.6), (plot_doctor, 0.5), (plot_selfish, 0.6), (plot_sad, 1.0), (plot_boydog, 1.0), (plot_robot, 0.7), (plot_winter, 0.5), (plot_trick, 0.7)]


# ---------------------------------------------------------------- surface style

SYNONYMS = {"big": "large huge", "shouted": "yelled", "hurried": "rushed", "wonderful": "amazing great", "scared": "frightened", "beautiful": "lovely pretty", "delicious": "yummy tasty", "strange": "odd mysterious",
            "shiny": "sparkly bright", "smiled": "grinned", "angry": "mad", "began": "started", "small": "tiny", "sad": "upset", "quickly": "fast", "clever": "smart", "stones": "rocks", "path": "road", "gift": "present",
            "walked": "went", "search": "look", "answered": "replied", "glad": "pleased", "afraid": "scared", "woods": "forest", "house": "home", "cried": "called"}
CONTRACT = [("did not", "didn't"), ("could not", "couldn't"), ("was not", "wasn't"), ("do not", "don't"), ("does not", "doesn't"), ("is not", "isn't"), ("would not", "wouldn't"), ("will not", "won't"), ("had not", "hadn't"), ("were not", "weren't"),
            ("cannot", "can't"), ("can not", "can't"), ("Do not", "Don't"), ("I am (?=[a-z])", "I'm "), ("It is (?=[a-z])", "It's "), ("I will (?=[a-z])", "I'll "), ("You are (?=[a-z])", "You're "), ("Let us (?=[a-z])", "Let's "), ("That is (?=[a-z])", "That's ")]
_CONTRACT = [(re.compile(r"\b%s%s" % (a, "" if a.endswith(")") else r"\b")), b) for a, b in CONTRACT]
_LEARNED = re.compile(r"(^|\n|[.!?] )(?:The )?(?:[A-Za-z]+ ){0,3}[A-Za-z]+ learned that ([^.\n<]*\.)")


def style(text, r):
    """Contractions, a few synonyms and other ways to put the moral, chosen once a story."""
    if r.random() < 0.5:
        for rx, b in _CONTRACT:
            text = rx.sub(b, text)
    if r.random() < 0.6:
        for w in r.sample(sorted(SYNONYMS), 7):
            if w in text:
                text = re.sub(r"\b%s\b" % w, r.choice(SYNONYMS[w].split()), text)
    if r.random() < 0.25:
        lead = r.choice(["The moral of the story is that ", "The lesson is that ", "And so we see that ", "Remember: "])
        m = _LEARNED.search(text)
        if m and not re.search(r"\b(he|she|they|his|her)\b", m.group(2)):
            body = m.group(2)
            text = text[:m.start()] + m.group(1) + lead + (body if lead != "Remember: " else body) + text[m.end():]
    return _AN.sub(_article, text)


def story(seed):
    rng = random.Random(seed)
    s = Story(rng)
    plots = PLOTS + PLOTS2
    fn = rng.choices([p for p, _ in plots], [w for _, w in plots])[0]
    fn(s)
    return style(s.text(), rng)


def _chunk(args):
    seed, first, count = args
    out = []
    for i in range(first, first + count):
        out.append(story("%d/%d" % (seed, i)))
    return "\n<|endoftext|>\n".join(out) + "\n<|endoftext|>\n"


def generate(megabytes, seed, workers=1):
    """Yield chunks of text, in order, until `megabytes` of them have been given."""
    want, done, size = int(megabytes * 1e6), 0, 500
    jobs = ((seed, i * size, size) for i in range(10 ** 9))
    if workers <= 1:
        for job in jobs:
            if done >= want:
                return
            text = _chunk(job)
            done += len(text)
            yield text
        return
    with multiprocessing.Pool(workers) as pool:
        first = 0
        while done < want:
            batch = [(seed, first + i * size, size) for i in range(workers * 2)]
            first += size * len(batch)
            for text in pool.map(_chunk, batch, chunksize=1):
                if done < want:
                    done += len(text)
                    yield text


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--out")
    ap.add_argument("--megabytes", type=float, default=10)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--workers", type=int, default=1)
    ap.add_argument("--show", type=int, help="print this many stories instead")
    ap.add_argument("--plot", help="with --show: only this plot")
    a = ap.parse_args()
    if a.show:
        for i in range(a.show):
            if a.plot:
                s = Story(random.Random("%d/%d" % (a.seed, i)))
                globals()["plot_" + a.plot](s)
                print(s.text(), "\n---")
            else:
                print(story("%d/%d" % (a.seed, i)), "\n---")
        return
    with (open(a.out, "w") if a.out else sys.stdout) as f:
        for text in generate(a.megabytes, a.seed, a.workers):
            f.write(text)


if __name__ == "__main__":
    main()
