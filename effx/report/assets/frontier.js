// The frontier chart: any two objectives of one task on one host.

const COLOUR_BY = { kind: 'reduction', series: 'series', checkpoint: 'checkpoint', precision: 'precision', backend: 'backend', device: 'device' };

function stairs(points, front, xName, yName) {
  const best = front.best.map((entry) => ROWS[entry]).filter((row) => points.has(row.index)).map((row) => points.get(row.index))
    .sort((a, b) => a.x - b.x || a.y - b.y);
  const line = [];
  best.forEach((point, index) => {
    if (index) line.push(objective(xName).maximise ? [best[index - 1].x, point.y] : [point.x, best[index - 1].y]);
    line.push([point.x, point.y]);
  });
  return line;
}

// An engine with the values that the frontier was computed with: scores of batches, on the frontier of their throughput.
function onFrontier(entry, front, number) {
  const other = front ? front.other[number] : {};
  return rowWith(ROWS[entry], Object.fromEntries(Object.entries(other).flatMap(([name, [value, low, high]]) => [[`${name}.value`, value], [`${name}.low`, low], [`${name}.high`, high]])));
}

function shortName(row) {
  return row.short.length > 30 ? `${row.short.slice(0, 29)}…` : row.short;
}

function pointsOf(rows, xName, yName, series, key) {
  const fx = unitFactor(objective(xName).unit), fy = unitFactor(objective(yName).unit);
  const scaled = (entry, factor) => (entry === null || entry === undefined ? null : entry * factor);
  const points = new Map();
  for (const row of rows) {
    if (valueOf(row, xName) === null || valueOf(row, yName) === null) continue;
    points.set(row.index, {
      row, series: series.get(key(row)), mark: '',
      x: valueOf(row, xName) * fx, xLow: scaled(lowOf(row, xName), fx), xHigh: scaled(highOf(row, xName), fx),
      y: valueOf(row, yName) * fy, yLow: scaled(lowOf(row, yName), fy), yHigh: scaled(highOf(row, yName), fy),
    });
  }
  return points;
}

function frontierSection() {
  if (!DATA.groups.length) return;
  const has = (group, name) => group.members.some((entry) => valueOf(ROWS[entry], name) !== null);
  const state = { group: 0, x: 'latency', y: 'quality', xLog: false, yLog: false, colour: '', source: 0 };
  const panel = el('div', { class: 'panel' });
  const about = el('div', { class: 'about' });
  const controls = el('div', { class: 'controls' });
  let front = null;
  const chart = new Scatter({
    label: 'Frontier',
    onActive: (point, spoken) => {
      panel.replaceChildren(details(point.row, front));
      if (spoken) announce(`${point.row.name}: ${[state.y, state.x].map((name) => `${name} ${figureWithInterval(point.row, name)}`).join('; ')}; ${(verdictOf(point.row, front) || { word: '' }).word}`);
    },
    onPin: (point) => pin(point.row),
  });

  const rebuild = () => {
    const group = DATA.groups[state.group];
    const names = OBJECTIVES.filter((criterion) => has(group, criterion.name)).map((criterion) => [criterion.name, criterion.name === 'quality' ? group.metric : criterion.label]);
    for (const axis of ['x', 'y']) if (!has(group, state[axis])) state[axis] = names.find(([name]) => name !== state[axis === 'x' ? 'y' : 'x'])[0];
    const fronts = frontierOf(group, state.x, state.y);
    if (state.source >= fronts.length) state.source = 0;
    state.colour ||= ['kind', 'checkpoint', 'precision', 'backend'].find((key) => new Set(group.members.map((entry) => ROWS[entry][key])).size > 1) || 'kind';
    const redo = (key) => (value) => { state[key] = typeof state[key] === 'number' ? Number(value) : value; chart.active = null; rebuild(); };
    const focused = [...controls.querySelectorAll('select, input')].indexOf(document.activeElement);
    controls.replaceChildren(...[
      DATA.groups.length > 1 ? select('Task and host', DATA.groups.map((entry) => [entry.index, groupName(entry)]), state.group, redo('group')) : null,
      select('y axis', names.filter(([name]) => name !== state.x), state.y, redo('y')),
      select('x axis', names.filter(([name]) => name !== state.y), state.x, redo('x')),
      fronts.length > 1 ? select('Energy source', fronts.map((entry, index) => [index, `${entry.energy_source} (${entry.meter})`]), state.source, redo('source')) : null,
      select('Colour and shape by', Object.entries(COLOUR_BY), state.colour, redo('colour')),
      el('div', { class: 'checks' }, checkbox('logarithmic x axis', state.xLog, redo('xLog')), checkbox('logarithmic y axis', state.yLog, redo('yLog'))),
    ].filter(Boolean));
    if (focused >= 0) [...controls.querySelectorAll('select, input')][focused]?.focus();
    front = fronts[Number(state.source)] || null;
    draw(group);
  };

  const draw = (group) => {
    const members = front ? front.members : group.members;
    const rows = members.map((entry, number) => onFrontier(entry, front, number));
    const key = (row) => String(row[state.colour]);
    const able = pointsOf(rows, state.x, state.y, seriesOf(rows, key), key);
    const compared = [...able.values()].map((point) => point.row);
    const mixed = (energetic(state.x) || energetic(state.y)) && meters(compared).length > 1 ? mixedMeters(compared) : null;
    const points = mixed ? new Map() : able;
    const lines = [];
    const keys = [{ kind: 'bar', text: '95 % interval' }];
    if (front) {
      for (const entry of front.best) { const point = points.get(entry); if (point) { point.mark = 'best'; point.label = shortName(point.row) + (front.knee === entry ? ' (knee)' : ''); } }
      for (const entry of Object.keys(front.tied)) { const point = points.get(Number(entry)); if (point) { point.mark = 'tied'; point.label = `~ ${shortName(point.row)}`; } }
      lines.push({ points: stairs(points, front, state.x, state.y), colour: 'var(--ink)', kind: 'front' });
      keys.unshift({ kind: 'line', text: 'frontier line' }, { kind: 'best', text: 'on the frontier' },
        { kind: 'tied', text: '~ statistically indistinguishable from it' }, { kind: 'under', text: 'dominated' });
    }
    const entry = [...points.values()];
    chart.node.setAttribute('aria-label', `${axisLabel(state.y, group, rows)} against ${axisLabel(state.x, group, rows)}, ${count(entry.length, 'engine')}`);
    chart.draw({
      points: entry, lines, keys, pinned: PINS.rows,
      x: { label: axisLabel(state.x, group, rows), log: state.xLog }, y: { label: axisLabel(state.y, group, rows), log: state.yLog },
    });
    if (chart.active === null) {
      const first = front && (front.knee ?? front.best[0]);
      panel.replaceChildren(first !== null && first !== undefined && first !== false ? details(onFrontier(first, front, front.members.indexOf(first)), front) : soft('Move the pointer to an engine to see its details.'));
    }
    about.replaceChildren(...aboutFrontier(group, front, entry.length, state, mixed));
  };

  section('frontier', 'Frontier', controls, el('div', { class: 'split' }, el('div', {}, about, chart.root), panel), pinnedPanel());
  PINS.watchers.push(() => { if (chart.spec) { chart.spec.pinned = PINS.rows; chart.rings(); } });
  rebuild();
}

function aboutFrontier(group, front, drawn, state, mixed) {
  const missing = group.members.length - drawn;
  const bare = energetic(state.x) || energetic(state.y) ? [...new Set(group.members.map((entry) => ROWS[entry].energy[0]?.reason).filter(Boolean))] : [];
  const host = DATA.hosts[group.host] || {};
  const lines = [`${count(drawn, 'engine')} for ${group.task} on ${group.host} (${[host.cpu, `${host.cores} cores`, host.virtual ? 'virtual machine' : null].filter(Boolean).join(', ')}).`];
  if (mixed) lines.push(` ${mixed}`);
  else if (missing) lines.push(` ${count(missing, 'engine')} not drawn: energy from another source or meter, or one of the two values missing${bare.length ? ` (${bare.join('; ')})` : ''}.`);
  if (!front) lines.push(' No frontier: this pair of objectives is not resampled, or the results do not contain predictions.');
  else {
    lines.push(` ${front.best.length} on the frontier${Object.keys(front.tied).length ? `, ${Object.keys(front.tied).length} more statistically indistinguishable from it` : ''}.`);
    if (front.knee !== null) lines.push(` Knee: ${ROWS[front.knee].name}.`);
    if (typeof front.hypervolume === 'number') {
      const ends = front.hypervolume_interval;
      const around = !ends ? '' : ends[1] > 1 ? ' (no useful interval: these engines are too similar)' : ` [${ends.map((entry) => fixed(entry, 3)).join(' to ')}]`;
      lines.push(` Hypervolume, from 0 to 1: ${fixed(front.hypervolume, 3)}${around}.`);
    }
    for (const entry of front.diminishing || []) lines.push(` Diminishing returns from ${entry.from} to ${entry.to}: per unit of cost, the gain is ${percent(entry.share)} of the frontier's average.`);
    if (front.energy_source === 'model' && front.objectives.some(energetic)) lines.push(' Energy is modelled, not measured: processor time multiplied by an assumed power.');
  }
  if (front) lines.push(` The frontier${front.knee !== null ? ' and its knee are' : ' is'} selected on the same ${group.n} rows that score the engines: on average, scores of the selected engines are slightly too high.`);
  return [soft(lines.join('')), lossSummary(group)];
}
