// The data as rows, and look-ups used by several sections.

const DATA = JSON.parse(document.getElementById('data').textContent);

const ROWS = (() => {
  const names = Object.keys(DATA.columns);
  const rows = names.length ? DATA.columns[names[0]].map((_, index) => ({ index })) : [];
  for (const name of names) DATA.columns[name].forEach((value, index) => { rows[index][name] = value; });
  DATA.columns = null;
  return rows;
})();

const OBJECTIVES = DATA.objectives.filter((criterion) => ROWS.some((row) => row[`${criterion.name}.value`] !== null));
const objective = (name) => DATA.objectives.find((criterion) => criterion.name === name);
// A row with further properties; all other properties are those of the row.
const rowWith = (row, more) => Object.assign(Object.create(row), more);
const energetic = (name) => Boolean((objective(name) || {}).energetic);
const valueOf = (row, name) => row[`${name}.value`];
const lowOf = (row, name) => row[`${name}.low`];
const highOf = (row, name) => row[`${name}.high`];

DATA.groups.forEach((group, index) => {
  group.index = index;
  group.members.forEach((member, position) => {
    ROWS[member].group = group;
    ROWS[member].loss = group.losses[position];
  });
  for (const front of group.frontiers) {
    front.index = new Map(front.members.map((member, index) => [member, index]));
    front.winners = new Set(front.best);
  }
});

const hostName = (id) => id;
const groupName = (group) => `${group.task} on ${hostName(group.host)}, n = ${group.n}`;

// The energy of single queries, timed end to end.
const energyOf = (row) => row.energy.find((entry) => entry.scenario === 'single-stream' && entry.timing === 'end-to-end');
const sourceOf = (row) => energyOf(row)?.source ?? 'none';
const sources = (rows) => [...new Set(rows.map(sourceOf))].sort();
const METERED = sources(ROWS).filter((entry) => entry !== 'none');
// Joules are compared, on an axis or in a ranking, if they are of one source and one meter, see effx/analysis/cohorts.py.
const meterOf = (row) => (sourceOf(row) === 'none' ? 'none' : `${sourceOf(row)} (${energyOf(row).meter})`);
const meters = (rows) => [...new Set(rows.map(meterOf))].sort();
const mixedMeters = (rows) => `Energies from different sources or meters cannot be compared: ${meters(rows).join(', ')}.`;

// Axis label with unit, direction, and n or the energy source.
function axisLabel(name, group, rows) {
  const criterion = objective(name);
  const label = name === 'quality' ? group.metric : criterion.label;
  const parts = [label];
  const unit = unitSymbol(criterion.unit);
  if (unit) parts[0] += `, ${unit}`;
  if (name === 'quality') parts.push(`n = ${group.n}`);
  if (energetic(name)) {
    parts.push(`source: ${sources(rows.filter((row) => valueOf(row, name) !== null)).join(', ')}`);
  }
  return `${parts.join(' · ')} (${criterion.maximise ? 'higher' : 'lower'} is better)`;
}

function frontierOf(group, xName, yName) {
  return group.frontiers.filter((entry) => entry.objectives.length === 2
    && entry.objectives.includes(xName) && entry.objectives.includes(yName));
}

const PAIRS = new Map();
for (const pair of DATA.pairs) PAIRS.set(`${pair.a} ${pair.b}`, pair);
const REFUSED = new Map();
for (const [a, b, why] of DATA.refused) REFUSED.set(`${a} ${b}`, why);

// The paired comparison of two rows, with its a and b, or why there is none.
function pairOf(a, b) {
  for (const [first, second] of [[a, b], [b, a]]) {
    const key = `${first.index} ${second.index}`;
    if (PAIRS.has(key)) return { pair: PAIRS.get(key), a: first, b: second };
    if (REFUSED.has(key)) return { why: REFUSED.get(key) };
  }
  for (const [what, key] of [['tasks', 'task'], ['hosts', 'host'], ['evaluation rows', 'rows'], ['numbers of rows', 'n']]) {
    if (a[key] !== b[key]) return { why: `The two results have different ${what}, so they cannot be paired.` };
  }
  if (!a.latest || !b.latest) return { why: 'One of them is not the latest result of its engine; only the latest results are compared here.' };
  return { why: `Not every pair of so many engines was computed for this page. For this pair run: effx compare ${a.id} ${b.id}` };
}

const against = (row) => {
  const base = row.group && ROWS[row.group.baseline];
  return base && PAIRS.get(`${base.index} ${row.index}`);
};

// Series get a colour and a shape, in order of size; the first MOST_SERIES differ from each other.
const SHAPES = ['circle', 'square', 'triangle', 'diamond', 'down', 'plus', 'cross'];
const MOST_SERIES = 21;
function seriesOf(rows, key) {
  const sizes = new Map();
  for (const row of rows) sizes.set(key(row), (sizes.get(key(row)) || 0) + 1);
  const names = [...sizes.keys()].sort((a, b) => sizes.get(b) - sizes.get(a) || (a < b ? -1 : 1));
  const rest = { name: `${names.length - MOST_SERIES + 1} others`, colour: 'var(--rest)', shape: 'circle' };
  const entry = new Map();
  names.forEach((name, index) => {
    const turn = Math.floor(index / SHAPES.length);
    entry.set(name, names.length > MOST_SERIES && index >= MOST_SERIES - 1 ? rest
      : { name, colour: `var(--c${index % SHAPES.length})`, shape: SHAPES[(index + 3 * turn) % SHAPES.length] });
  });
  return entry;
}
