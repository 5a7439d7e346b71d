// One curve per series: accuracy against cost as the level of a reduction increases.

function curvesSection() {
  const isReduced = (row) => row.technique !== 'full' && row.technique !== 'made elsewhere';
  const reduced = (group) => group.members.map((entry) => ROWS[entry]).filter(isReduced);
  const groups = DATA.groups.filter((group) => reduced(group).length);
  if (!groups.length) return;
  const state = { group: groups[0].index, x: 'latency' };
  const controls = el('div', { class: 'controls' });
  const panel = el('div', { class: 'panel' });
  const chart = new Scatter({ label: 'Accuracy by level of reduction', onActive: (point, spoken) => {
    panel.replaceChildren(details(point.row, null));
    if (spoken) announce(`${point.row.series}, ${point.row.level_text}: ${figureWithInterval(point.row, 'quality')}; ${figureWithInterval(point.row, state.x) || ''}`);
  }, onPin: (point) => pin(point.row) });
  const about = el('div', {});

  const rebuild = () => {
    const group = DATA.groups[state.group];
    const rows = group.members.map((entry) => ROWS[entry]);
    const costs = OBJECTIVES.filter((criterion) => criterion.name !== 'quality' && rows.some((row) => valueOf(row, criterion.name) !== null));
    if (!costs.some((criterion) => criterion.name === state.x)) state.x = costs[0].name;
    const of = rows.filter((row) => isReduced(row) && row.technique !== 'combined');
    const strategies = new Set(of.map((row) => row.series));
    const redo = (key) => (value) => { state[key] = value; chart.active = null; rebuild(); };
    const focused = [...controls.querySelectorAll('select')].indexOf(document.activeElement);
    controls.replaceChildren(...[
      groups.length > 1 ? select('Task and host', groups.map((entry) => [entry.index, groupName(entry)]), state.group, redo('group')) : null,
      select('Cost', costs.map((criterion) => [criterion.name, criterion.label]), state.x, redo('x')),
    ].filter(Boolean));
    if (focused >= 0) controls.querySelectorAll('select')[focused]?.focus();
    const key = (row) => row.series;
    const shown = [...of, ...rows.filter((row) => !isReduced(row))];
    const points = pointsOf(shown, state.x, 'quality', seriesOf(shown, key), key);
    const lines = [...strategies].map((name) => of.filter((row) => row.series === name && points.has(row.index) && row.level !== null)
      .sort((a, b) => a.level - b.level).map((row) => points.get(row.index)))
      .filter((entry) => entry.length > 1).map((entry) => ({ points: entry.map((point) => [point.x, point.y]), colour: entry[0].series.colour }));
    const few = points.size <= 30;
    for (const point of points.values()) {
      point.mark = point.row.technique === 'full' ? 'best' : '';
      if (few) point.label = { full: point.row.precision, 'made elsewhere': point.row.short }[point.row.technique] ?? point.row.level_text;
    }
    const drawn = [...points.values()].map((point) => point.row);
    const mixed = energetic(state.x) && meters(drawn).length > 1;
    chart.draw({
      points: mixed ? [] : [...points.values()], lines: mixed ? [] : lines, pinned: PINS.rows,
      keys: [{ kind: 'bar', text: '95 % interval' }],
      x: { label: axisLabel(state.x, group, rows), log: false }, y: { label: axisLabel('quality', group, rows), log: false },
    });
    const combined = rows.filter((row) => row.technique === 'combined').length;
    about.replaceChildren(soft(mixed ? mixedMeters(drawn)
      : `${strategies.size.toLocaleString('en')} series: each joins the engines of criterion reduction, precision and backend in order of their level. Engines without a reduction, or made elsewhere, are single points.${combined ? ` Not shown: ${count(combined, 'engine')} with several reductions.` : ''}`));
    if (chart.active === null) panel.replaceChildren(levels(of, state.x, group, mixed));
  };
  section('reductions', 'Levels of reduction', controls, el('div', { class: 'split' }, el('div', {}, about, chart.root), panel));
  PINS.watchers.push(() => { if (chart.spec) { chart.spec.pinned = PINS.rows; chart.rings(); } });
  rebuild();
}

// The table next to the curves: accuracy and cost of each level, with the meter if there are several.
function levels(rows, cost, group, mixed) {
  const sorted = [...rows].sort((a, b) => (a.series < b.series ? -1 : a.series > b.series ? 1 : (b.level ?? 0) - (a.level ?? 0)));
  const criterion = objective(cost);
  return el('div', {}, el('h3', {}, 'Levels'), el('div', { class: 'table', tabindex: '0', role: 'region', 'aria-label': 'Levels of each series' }, el('table', {},
    el('thead', {}, el('tr', {}, ['series', 'level', group.metric, `${TITLES[cost] || criterion.short}${unitSymbol(criterion.unit) ? `, ${unitSymbol(criterion.unit)}` : ''}`].map((text, index) => el('th', { scope: 'col', class: index < 2 ? 'word' : null }, text)))),
    el('tbody', {}, sorted.slice(0, 60).map((row) => el('tr', {}, el('th', { scope: 'row', class: 'word' }, row.series), el('td', { class: 'word' }, row.level_text), el('td', {}, inColumn(valueOf(row, 'quality'), '')), el('td', {}, inColumn(valueOf(row, cost), criterion.unit), mixed && valueOf(row, cost) !== null && el('small', {}, ` ${meterOf(row)}`))))))));
}
