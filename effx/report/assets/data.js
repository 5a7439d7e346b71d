// The data as rows, and the questions that several parts ask of them.

const DATA = JSON.parse(document.getElementById('data').textContent);

const ROWS = (() => {
  const names = Object.keys(DATA.columns);
  const rows = names.length ? DATA.columns[names[0]].map((_, index) => ({ index })) : [];
  for (const name of names) DATA.columns[name].forEach((value, index) => { rows[index][name] = value; });
  DATA.columns = null;
  return rows;
})();

const OBJECTIVES = DATA.objectives.filter((one) => ROWS.some((row) => row[`${one.name}.value`] !== null));
const objective = (name) => DATA.objectives.find((one) => one.name === name);
// A row with something of its own added; all else is read through to the row.
const rowWith = (row, own) => Object.assign(Object.create(row), own);
const energetic = (name) => Boolean((objective(name) || {}).energetic);
const valueOf = (row, name) => row[`${name}.value`];
const lowOf = (row, name) => row[`${name}.low`];
const highOf = (row, name) => row[`${name}.high`];

DATA.groups.forEach((group, index) => {
  group.index = index;
  for (const member of group.members) ROWS[member].group = group;
  for (const front of group.frontiers) {
    front.place = new Map(front.members.map((member, place) => [member, place]));
    front.winners = new Set(front.best);
  }
});

const hostName = (id) => id;
const groupName = (group) => `${group.task} on ${hostName(group.host)}, n = ${group.n}`;

// The energy that an engine's figure is: that of single queries from the host's memory and back.
const energyOf = (row) => row.energy.find((own) => own.scenario === 'single-stream' && own.timing === 'end-to-end');
const sourceOf = (row) => energyOf(row)?.source ?? 'none';
const sources = (rows) => [...new Set(rows.map(sourceOf))].sort();
const METERED = sources(ROWS).filter((own) => own !== 'none');

// Axis label with unit, what is better, n or the energy source: no axis goes without them.
function axisLabel(name, group, rows) {
  const one = objective(name);
  const label = name === 'accuracy' ? group.metric : one.label;
  const parts = [label];
  const unit = unitSymbol(one.unit);
  if (unit) parts[0] += `, ${unit}`;
  if (name === 'accuracy') parts.push(`n = ${group.n}`);
  if (energetic(name)) {
    parts.push(`source: ${sources(rows.filter((row) => valueOf(row, name) !== null)).join(', ')}`);
  }
  return `${parts.join(' · ')} (${one.maximise ? 'higher' : 'lower'} is better)`;
}

function frontierOf(group, one, other) {
  return group.frontiers.filter((own) => own.objectives.length === 2
    && own.objectives.includes(one) && own.objectives.includes(other));
}

const PAIRS = new Map();
for (const pair of DATA.pairs) PAIRS.set(`${pair.a} ${pair.b}`, pair);
const REFUSED = new Map();
for (const [a, b, why] of DATA.refused) REFUSED.set(`${a} ${b}`, why);

// The paired comparison of two rows in the order it was made, or why there is none.
function pairOf(a, b) {
  for (const [one, other] of [[a, b], [b, a]]) {
    const key = `${one.index} ${other.index}`;
    if (PAIRS.has(key)) return { pair: PAIRS.get(key), a: one, b: other };
    if (REFUSED.has(key)) return { why: REFUSED.get(key) };
  }
  for (const [what, key] of [['tasks', 'task'], ['hosts', 'host'], ['evaluation rows', 'rows'], ['numbers of rows', 'n']]) {
    if (a[key] !== b[key]) return { why: `They are of different ${what}: nothing of them is paired.` };
  }
  if (!a.latest || !b.latest) return { why: 'One of them is an older result of its engine; only the latest results are compared here.' };
  return { why: `With so many engines not every pair was computed for this page. Ask for this one with: effx compare ${a.id} ${b.id}` };
}

const against = (row) => {
  const base = row.group && ROWS[row.group.baseline];
  return base && PAIRS.get(`${base.index} ${row.index}`);
};

// Series get a colour and a shape each, in order of size: no two of the first MOST_SERIES look alike.
const SHAPES = ['circle', 'square', 'triangle', 'diamond', 'down', 'plus', 'cross'];
const MOST_SERIES = 21;
function seriesOf(rows, key) {
  const sizes = new Map();
  for (const row of rows) sizes.set(key(row), (sizes.get(key(row)) || 0) + 1);
  const names = [...sizes.keys()].sort((a, b) => sizes.get(b) - sizes.get(a) || (a < b ? -1 : 1));
  const rest = { name: `${names.length - MOST_SERIES + 1} others`, colour: 'var(--rest)', shape: 'circle' };
  const own = new Map();
  names.forEach((name, place) => {
    const turn = Math.floor(place / SHAPES.length);
    own.set(name, names.length > MOST_SERIES && place >= MOST_SERIES - 1 ? rest
      : { name, colour: `var(--c${place % SHAPES.length})`, shape: SHAPES[(place + 3 * turn) % SHAPES.length] });
  });
  return own;
}
