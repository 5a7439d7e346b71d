// Sections that other commands wrote as JSON: text, charts of series, maps of values, tables.

function extraSections() {
  DATA.sections.forEach((own, number) => {
    const parts = [own.text && el('p', {}, own.text), own.source && soft(`From ${own.source}.`)];
    for (const one of own.charts || []) parts.push(extraChart(one));
    for (const one of own.maps || []) parts.push(extraMap(one));
    for (const one of own.tables || []) parts.push(extraTable(one));
    section(`extra-${number + 1}`, own.title, ...parts);
  });
}

const axisText = (axis) => `${axis.label}${axis.unit ? `, ${axis.unit}` : ''}`;

function extraChart(one) {
  const found = seriesOf(one.series, (own) => own.name);
  const points = one.series.flatMap((own) => own.points.map((point) => ({
    x: point.x, y: point.y, xLow: null, xHigh: null, yLow: point.low ?? null, yHigh: point.high ?? null, label: point.label, mark: '', series: found.get(own.name), of: own.name,
  })));
  const read = soft('');
  const chart = new Scatter({ label: one.title, onActive: (point, spoken) => {
    read.textContent = `${point.of}: ${axisText(one.x)} ${significant(point.x, 4)}; ${axisText(one.y)} ${significant(point.y, 4)}${point.yLow === null ? '' : ` [${significant(point.yLow, 4)} to ${significant(point.yHigh, 4)}]`}`;
    if (spoken) say(read.textContent);
  } });
  requestAnimationFrame(() => chart.draw({
    points, keys: points.some((point) => point.yLow !== null) ? [{ kind: 'bar', text: one.interval || 'interval' }] : [],
    lines: one.series.map((own) => ({ points: [...own.points].sort((a, b) => a.x - b.x).map((point) => [point.x, point.y]), colour: found.get(own.name).colour })),
    x: { label: axisText(one.x), log: Boolean(one.x.log) }, y: { label: axisText(one.y), log: Boolean(one.y.log) },
  }));
  return el('figure', { class: 'extra' }, el('figcaption', {}, one.title), chart.root, read);
}

function extraMap(one) {
  const [least, most] = minmax(one.values.flat().filter((own) => own !== null));
  return el('figure', { class: 'extra' }, el('figcaption', {}, `${one.title}${one.unit ? `, ${one.unit}` : ''}`),
    el('div', { class: 'table', tabindex: '0', role: 'region', 'aria-label': one.title }, el('table', { class: 'map' },
      el('thead', {}, el('tr', {}, el('th', { scope: 'col', class: 'word' }, one.corner || ''), one.columns.map((own) => el('th', { scope: 'col' }, String(own))))),
      el('tbody', {}, one.values.map((values, place) => el('tr', {}, el('th', { scope: 'row', class: 'word' }, String(one.rows[place])),
        values.map((own) => (own === null ? el('td', { class: 'none' }, '–')
          : el('td', { class: 'seq', css: { '--heat': `${Math.round(8 + 62 * (most > least ? (own - least) / (most - least) : 0))}%` } }, significant(own))))))))));
}

function extraTable(one) {
  const rows = one.rows.map((cells) => ({ cells, name: cells.join(' ') }));
  return new DataTable({
    caption: one.title, rows, sort: null,
    columns: one.columns.map((column, place) => ({
      key: String(place), title: axisText(column), align: rows.some((row) => typeof row.cells[place] === 'string') ? 'word' : 'number',
      sort: (row) => row.cells[place],
      text: (row) => (typeof row.cells[place] === 'number' && !Number.isInteger(row.cells[place]) ? significant(row.cells[place], 4) : row.cells[place] === null ? '–' : String(row.cells[place])),
    })),
  }).root;
}
